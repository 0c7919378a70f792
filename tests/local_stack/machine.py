"""`make up` and `make down` as their user calls them, on ports and in a folder of their own."""

import os
import socket
import subprocess
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from prectr.ops.local_stack.processes import processes_of
from prectr.ops.local_stack.settings import UpSettings
from testkit.command import environment
from testkit.kafka_broker import INSTALL_HINT, kafka_home
from tests.local_stack.tools import missing, needed

ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 400
_PORTS = 8


@dataclass
class Machine:
    """What is up in `folder`, on the ports from `first` on."""

    folder: Path
    first: int

    def make(self, target: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run `make TARGET`, to its end."""
        # Coverage of the processes is measured by other tests, and would double what these take.
        plain = {name: value for name, value in environment().items() if not name.startswith(("COV", "UP_", "MAKE"))}
        return subprocess.run(
            ["make", "--silent", target],
            cwd=ROOT,
            env={**plain, **self.settings, **settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )

    @property
    def settings(self) -> dict[str, str]:
        names = ("KAFKA", "CONTROLLER", "PROMETHEUS", "MONITOR", "METRICS")
        ports = {f"UP_{name}_PORT": str(self.first + number) for number, name in enumerate(names)}
        return {"UP_DIR": str(self.folder), **ports}

    @property
    def parsed(self) -> UpSettings:
        """The settings as the program reads them."""
        return UpSettings.from_environment(self.settings)

    def is_up(self) -> bool:
        """Whether anything has this folder in its command or its environment, or holds one of the ports."""
        return bool(processes_of(self.folder) or self.commands() or self.taken())

    def commands(self) -> list[str]:
        """Processes that name the folder."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with suppress(OSError):
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if str(self.folder) in words:
                        found.append(words)
        return found

    def taken(self) -> list[int]:
        """Return the ports that are in use."""
        found = []
        for port in range(self.first, self.first + _PORTS):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    found.append(port)
        return found


def machine(folder: Path) -> Machine:
    """One with free ports; the test is skipped where Kafka or Prometheus is missing."""
    needed("prometheus")
    if kafka_home() is None:
        missing(f"no Kafka to test with: {INSTALL_HINT}")
    return Machine(folder, _free_row())


def _free_row() -> int:
    """The first of some ports in a row that are free; processes that look at the same time begin elsewhere."""
    begin = 12_000 + os.getpid() % 400 * 2 * _PORTS
    for port in range(begin, begin + 100 * _PORTS, _PORTS):
        with ExitStack() as stack, suppress(OSError):
            for each in range(port, port + _PORTS):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", each))
            return port
    raise AssertionError("no free ports")
