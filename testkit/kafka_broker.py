"""A real Kafka broker for tests, started on a free port with a folder of its own."""

import random
import re
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from prectr.ops.local_stack.broker import (
    INSTALL_HINT,
    broker_command,
    format_storage,
    java_command,
    kafka_home,
    write_properties,
)

__all__ = ["INSTALL_HINT", "Broker", "kafka_home"]
_START_SECONDS = 90
_FIRST_PORT = 10_000
_ACL_PROPERTIES = """\
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
"""
"""Everything is allowed until a test adds an ACL."""
_TEST_JVM_OPTION = "-XX:TieredStopAtLevel=1"
"""Starts faster, without the optimizing compiler."""


class Broker:
    """One broker, from `start` to `stop`. address: host:port."""

    def __init__(self, home: Path, folder: Path) -> None:
        self._folder = folder
        java, *options = java_command(home)
        self._java = [java, _TEST_JVM_OPTION, *options]
        port, controller = free_ports(2)
        self.address = f"127.0.0.1:{port}"
        self._properties = write_properties(folder, port, controller)
        self._properties.write_text(self._properties.read_text() + _ACL_PROPERTIES)
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Format the data folder, unless it exists."""
        format_storage(self._java, self._properties)

    @property
    def command(self) -> list[str]:
        """The command line of the broker."""
        return broker_command(self._java, self._properties)

    def start(self) -> None:
        """Start, or restart after a crash, and wait until the broker answers."""
        self.prepare()
        log = self._folder / "server.log"
        with log.open("wb") as out:
            self._process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        deadline = time.monotonic() + _START_SECONDS
        while b"Kafka Server started" not in log.read_bytes():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"Kafka did not start:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.2)

    @property
    def running(self) -> bool:
        """Whether the process is running."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process; None while there is none."""
        return None if self._process is None else self._process.pid

    def kill(self) -> None:
        """Kill the broker, as a crash of its machine would; `start` restarts it with its data."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let the broker answer nothing, while its port takes connections, until `thaw`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the broker go on after `freeze`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def advertise(self, address: str) -> None:
        """Let the broker, which is not running, name this address to its clients."""
        listener = f"advertised.listeners=PLAINTEXT://{address}"
        text, count = re.subn(r"(?m)^advertised\.listeners=.*$", listener, self._properties.read_text())
        assert count == 1
        self._properties.write_text(text)

    def truncate(self, topic: str, partition: int, share: float) -> None:
        """Cut a partition's log short, as an unclean election does; the broker must not be running.

        Args:
            share: of its bytes that are kept; the broker drops the batch that is cut through when it starts.
        """
        data = self._folder / "data"
        folder = data / f"{topic}-{partition}"
        (segment,) = folder.glob("*.log")
        with segment.open("r+b") as file:
            file.truncate(int(segment.stat().st_size * share))
        for stale in (*folder.glob("*.*index"), *folder.glob("*.snapshot"), *data.glob("*-offset-checkpoint")):
            stale.unlink()

    def stop(self) -> None:
        """Stop the broker by SIGTERM, then by SIGKILL."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def free_ports(count: int) -> list[int]:
    """Some ports in a row that are free; the kernel gives none of them to a connection.

    The row begins at random, so that processes that look at the same time find different ones.
    """
    end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        first = random.Random().randrange(_FIRST_PORT, end - count)
        ports = list(range(first, first + count))
        with ExitStack() as stack, suppress(OSError):
            for port in ports:
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return ports
