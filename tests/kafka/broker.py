"""A real Kafka broker for tests: found, started on a free port in a folder of its own, stopped."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

HOW = "run `make kafka` (Maven and Java 17), or set KAFKA_HOME to an unpacked Apache Kafka 4"
_CHECKOUT = Path(__file__).resolve().parents[2]
_PLACES = (_CHECKOUT.parent / "shared" / "kafka", _CHECKOUT / ".kafka")
_START_SECONDS = 90

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
log.dirs={folder}/data
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.retention.check.interval.ms=1000
"""


def kafka_home() -> Path | None:
    """Where Kafka is: KAFKA_HOME, else ../shared/kafka, else of `make kafka`; None if nowhere, or without Java."""
    named = os.environ.get("KAFKA_HOME")
    homes = (Path(named),) if named else _PLACES
    return next((home for home in homes if (home / "libs").is_dir() and shutil.which("java")), None)


class Broker:
    """One broker, from `start` to `stop`. address: host:port."""

    def __init__(self, home: Path, folder: Path) -> None:
        self._folder = folder
        config = next((path for path in (home / "log4j2.yaml", home / "config" / "log4j2.yaml") if path.exists()), None)
        self._java = ["java", "-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        if config is not None:
            self._java.append(f"-Dlog4j2.configurationFile={config}")
        self._java += ["-cp", f"{home}/libs/*"]
        port, controller = _free_ports(2)
        self.address = f"127.0.0.1:{port}"
        folder.mkdir(parents=True, exist_ok=True)
        self._properties = folder / "server.properties"
        self._properties.write_text(_PROPERTIES.format(port=port, controller=controller, folder=folder))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, or start again after a crash, and wait until it answers."""
        if not (self._folder / "data" / "meta.properties").exists():
            tool = [*self._java, "kafka.tools.StorageTool"]
            made = subprocess.run([*tool, "random-uuid"], capture_output=True, text=True, check=True)
            cluster = made.stdout.split()[-1]
            formatting = [*tool, "format", "--standalone", "-t", cluster, "-c", str(self._properties)]
            subprocess.run(formatting, capture_output=True, check=True)
        log = self._folder / "server.log"
        with log.open("wb") as out:
            command = [*self._java, "kafka.Kafka", str(self._properties)]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        until = time.monotonic() + _START_SECONDS
        while b"Kafka Server started" not in log.read_bytes():
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise RuntimeError(f"Kafka did not start:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.2)

    @property
    def running(self) -> bool:
        """Whether it is up, as far as is known here."""
        return self._process is not None and self._process.poll() is None

    def crash(self) -> None:
        """Kill it, as a crash of its machine would; `start` brings it back with what it had."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Stop it, kindly at first."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports
