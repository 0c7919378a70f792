"""A Kafka broker on this machine: locates Kafka, configures and starts a broker."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

INSTALL_HINT: Final = "run `make kafka` (Maven and Java 17), or set KAFKA_HOME to an unpacked Apache Kafka 4"
_CHECKOUT: Final = Path(__file__).resolve().parents[2]
_KAFKA_HOMES: Final = (_CHECKOUT.parent / "shared" / "kafka", _CHECKOUT / ".kafka")

_PROPERTIES: Final = """\
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
    """The Kafka folder: KAFKA_HOME, ../shared/kafka or that of `make kafka`; None if missing or without Java."""
    named = os.environ.get("KAFKA_HOME")
    homes = (Path(named),) if named else _KAFKA_HOMES
    return next((home for home in homes if (home / "libs").is_dir() and shutil.which("java")), None)


def java_command(home: Path) -> list[str]:
    """The command line of a Kafka program up to its class name; 512 MB, logs to the console."""
    command = ["java", "-Xms256m", "-Xmx512m", "-XX:+UseSerialGC"]
    config = next((path for path in (home / "log4j2.yaml", home / "config" / "log4j2.yaml") if path.exists()), None)
    if config is not None:
        command.append(f"-Dlog4j2.configurationFile={config}")
    return [*command, "-cp", f"{home}/libs/*"]


def write_properties(folder: Path, port: int, controller: int) -> Path:
    """Write the settings of a broker with its data in `folder`; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    properties = folder / "server.properties"
    properties.write_text(_PROPERTIES.format(port=port, controller=controller, folder=folder))
    return properties


def format_storage(java: list[str], properties: Path, *, standalone: bool = True) -> None:
    """Format the data folder of a broker unless it exists; safe to repeat.

    standalone: whether it is the only controller, without voters in its settings.
    """
    if (properties.parent / "data" / "meta.properties").exists():
        return
    tool = [*java, "kafka.tools.StorageTool"]
    uuid = subprocess.run([*tool, "random-uuid"], capture_output=True, text=True, check=True)
    standalone_flag = ["--standalone"] if standalone else []
    formatting = [*tool, "format", *standalone_flag, "-t", uuid.stdout.split()[-1], "-c", str(properties)]
    subprocess.run(formatting, capture_output=True, check=True)


def broker_command(java: list[str], properties: Path) -> list[str]:
    """The command line of the broker; it is ready once it logs "Kafka Server started"."""
    return [*java, "kafka.Kafka", str(properties)]
