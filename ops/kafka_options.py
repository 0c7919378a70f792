"""The options that every command against a broker has, and the connection that they make."""

import logging
import os
import tomllib
from pathlib import Path
from typing import Annotated

import typer

from state.errors import ConfigError
from stream.kafka.client import Connection

Bootstrap = Annotated[str, typer.Option(help="Kafka brokers, host:port, several with commas.")]
TopicPrefix = Annotated[str, typer.Option(help="Put before the name of every topic; keeps systems apart.")]
GroupPrefix = Annotated[str, typer.Option(help="Put before the name of every consumer group.")]
ClientConfig = Annotated[
    Path | None,
    typer.Option(help="TOML file of kafka-python client settings, such as security_protocol and sasl_plain_password."),
]


Wait = Annotated[float, typer.Option(min=0, help="Seconds to go on trying while the broker does not answer.")]


def connection(bootstrap: str, client_config: Path | None, wait: float) -> Connection:
    """The connection that the options describe; secrets stay in the file.

    Raises:
        ConfigError: the file cannot be read or is not TOML, or holds a setting that cannot be made.
    """
    if os.environ.get("PRECTR_DEBUG", "") in ("", "0"):
        # The client library logs every failed attempt, with tracebacks; what matters is raised, and told in a line.
        logging.getLogger("kafka").setLevel(logging.CRITICAL + 1)
    if client_config is None:
        return Connection(bootstrap, wait=wait)
    try:
        settings = tomllib.loads(client_config.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{client_config}: the client settings cannot be read: {error.strerror}") from error
    except ValueError as error:
        # The text of a TOML error may quote the line, and the line may be a password.
        raise ConfigError(f"{client_config}: the client settings are not TOML") from error
    return Connection(bootstrap, settings, wait)
