"""The broker of `make up`: `python -m prectr.ops.local_stack.kafka` execs it."""

import os

from prectr.ops.local_stack.broker import (
    INSTALL_HINT,
    broker_command,
    format_storage,
    java_command,
    kafka_home,
    write_properties,
)
from prectr.ops.local_stack.settings import UpSettings
from prectr.state.errors import PrectrError


def main() -> None:
    """Configure the broker and replace this process by it, so that signals reach it."""
    settings, home = UpSettings.from_environment(), kafka_home()
    if home is None:
        raise PrectrError(f"make up finds no Kafka: {INSTALL_HINT}")
    java = java_command(home)
    properties = write_properties(settings.dir / "kafka", settings.kafka_port, settings.controller_port)
    format_storage(java, properties)
    command = broker_command(java, properties)
    # Its log is long, so it gets a file of its own.
    log = os.open(settings.kafka_log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    print(f"log of the broker: {settings.kafka_log}", flush=True)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
