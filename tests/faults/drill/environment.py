"""The system of a drill: broker, `prectr run`, Prometheus and a producer, as processes that outlive this one."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from prectr.ops.live import parent_watchdog
from prectr.ops.local_stack.prometheus import CHECKOUT
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics
from testkit.command import PRECTR, environment
from testkit.kafka_broker import Broker, free_ports

_READY_TIMEOUT: Final = 120.0
_STREAM_WORKERS: Final = 2
_END_TIMEOUT: Final = 60.0
"""Longer than a process of `prectr run` goes on without it."""


class Drill:
    """A drill in a folder. `settings` are its addresses and process ids."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "drill.json"
        self.settings: dict[str, Any] = json.loads(self._file.read_bytes()) if self._file.exists() else {}

    @property
    def bootstrap(self) -> str:
        """Address of the broker."""
        return str(self.settings["bootstrap"])

    @property
    def connection(self) -> Connection:
        """To the broker."""
        return Connection(self.bootstrap, connect_timeout=30)

    @property
    def topics(self) -> Topics:
        """Of the system."""
        return Topics("")

    @property
    def run_dir(self) -> Path:
        """Of `prectr run`."""
        return self.folder / "live"

    def begin(self, home: Path) -> None:
        """Start everything, and wait until a model has been trained on something."""
        self.folder.mkdir(parents=True)
        broker = Broker(home, self.folder / "kafka")
        # Trainer, monitor and stream workers serve metrics on ports in a row.
        metrics, *_, monitor, prometheus = free_ports(_STREAM_WORKERS + 4)
        self.settings = {
            "bootstrap": broker.address,
            "metrics_port": metrics,
            "monitor_port": monitor,
            "prometheus_port": prometheus,
            "pids": {},
        }
        self._write_scripts(broker)
        self.start_broker()
        self.start_run()
        self.start_producer()
        deadline = time.monotonic() + _READY_TIMEOUT
        while not any((self.run_dir / "checkpoints").glob("0*")):
            if time.monotonic() > deadline:
                raise RuntimeError(f"no model was trained in {_READY_TIMEOUT:.0f} s: see {self.run_dir / 'logs'}")
            time.sleep(0.5)
        # After `prectr run` has written its targets: Prometheus does not notice a link that leads somewhere later.
        self._start_prometheus(prometheus)

    def start_broker(self) -> None:
        """Start the broker by the script that the people on call have too."""
        subprocess.run([self.folder / "broker.sh", "start"], check=True)

    def kill_broker(self, number: signal.Signals) -> None:
        """Send the broker a signal."""
        os.kill(int((self.folder / "broker.pid").read_text()), number)

    def start_run(self) -> None:
        """Start `prectr run` by the script that the people on call have too."""
        subprocess.run([self.folder / "run.sh", "start"], check=True)

    def stop_run(self) -> None:
        """Stop `prectr run`, and wait for it."""
        subprocess.run([self.folder / "run.sh", "stop"], check=True)

    def start_producer(self, mode: str = "well") -> None:
        """Start the producer, or start it again in another mode."""
        self.stop("producer")
        command = [sys.executable, "-m", "tests.faults.drill.producer", self.bootstrap, mode]
        self.spawn("producer", command)

    def spawn(self, name: str, command: list[str]) -> None:
        """Start a process that goes on when this one ends."""
        log = (self.folder / f"{name}.log").open("ab")
        process = subprocess.Popen(
            command, cwd=CHECKOUT, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        self.settings["pids"][name] = process.pid
        self._file.write_text(json.dumps(self.settings, indent=1))

    def stop(self, name: str) -> None:
        """Kill a process that `spawn` started."""
        pid = self.settings["pids"].pop(name, None)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def end(self) -> None:
        """Stop everything, and wait for it; the folder stays."""
        with suppress(FileNotFoundError, ProcessLookupError):
            self.kill_broker(signal.SIGCONT)
        # They have sessions of their own: they notice the death of `prectr run`, and take time to end.
        pids = [*self._children_of_run(), *self.settings["pids"].values()]
        pids += [int(path.read_text()) for path in (self.folder / "run.pid", self.folder / "broker.pid")]
        subprocess.run([self.folder / "run.sh", "kill"], check=False)
        for name in list(self.settings["pids"]):
            self.stop(name)
        subprocess.run([self.folder / "broker.sh", "kill"], check=False)
        deadline = time.monotonic() + _END_TIMEOUT
        while pids := [pid for pid in pids if _is_alive(pid)]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"processes {pids} did not end within {_END_TIMEOUT:.0f} s")
            time.sleep(0.2)

    def _children_of_run(self) -> list[int]:
        marks = (parent_watchdog.__name__.encode(), bytes(self.folder))
        found = []
        for process in Path("/proc").iterdir():
            with suppress(OSError):
                if process.name.isdecimal() and all(mark in (process / "cmdline").read_bytes() for mark in marks):
                    found.append(int(process.name))
        return found

    def _write_scripts(self, broker: Broker) -> None:
        """`broker.sh` and `run.sh`, each with start, stop and kill."""
        run = [
            *PRECTR, "run", "--bootstrap", broker.address, "--run-dir", str(self.run_dir),
            "--stream-workers", str(_STREAM_WORKERS), "--snapshots", str(self.folder / "snapshots"),
            "--model", "lr", "--checkpoint-interval", "5", "--metrics-port", str(self.settings["metrics_port"]),
            "--config", str(self.folder / "settings.toml"), "--monitor-port", str(self.settings["monitor_port"]),
        ]  # fmt: skip
        # Otherwise no page closes before two minutes have passed.
        (self.folder / "settings.toml").write_text('attribution_window = "10s"\n')
        broker.prepare()
        for name, command in (("broker", broker.command), ("run", run)):
            script = self.folder / f"{name}.sh"
            words = " ".join(f"'{word}'" for word in command)
            pid, log = self.folder / f"{name}.pid", self.folder / f"{name}.log"
            script.write_text(
                "#!/bin/sh\n"
                f"case $1 in\n"
                f"start) cd {CHECKOUT} || exit 1; setsid nohup {words} >>{log} 2>&1 </dev/null & echo $! >{pid};;\n"
                f"stop) kill $(cat {pid}); while kill -0 $(cat {pid}) 2>/dev/null; do sleep 0.2; done;;\n"
                f"kill) kill -9 -$(cat {pid}) 2>/dev/null;;\n"
                "esac\n"
            )
            script.chmod(0o755)

    def _start_prometheus(self, port: int) -> None:
        program = shutil.which("prometheus")
        if program is None:
            return
        folder = self.folder / "prometheus"
        folder.mkdir()
        shutil.copyfile(CHECKOUT / "ops" / "prometheus" / "prometheus.yml", folder / "prometheus.yml")
        (self.folder / "alerts").symlink_to(CHECKOUT / "ops" / "alerts")
        (folder / "targets.yml").symlink_to(self.run_dir / "targets.json")
        self.spawn(
            "prometheus",
            [
                program, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
        )  # fmt: skip


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
