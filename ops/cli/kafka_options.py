"""The options that every command against a broker has, and the connection that they make."""

import os
import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from prectr.state.errors import ConfigError
from prectr.stream.kafka.client.client import Connection, known_settings
from prectr.stream.kafka.client.client_internals import silence_client_logs
from prectr.stream.kafka.client.oauth import TokenProvider

Bootstrap = Annotated[str, typer.Option(help="Kafka brokers, host:port, several with commas.")]
TopicPrefix = Annotated[str, typer.Option(help="Put before the name of every topic; keeps systems apart.")]
GroupPrefix = Annotated[str, typer.Option(help="Put before the name of every consumer group.")]
ClientConfig = Annotated[
    Path | None,
    typer.Option(
        help="TOML file of kafka-python client settings, such as security_protocol. A name with _file or _env behind "
        "it, such as sasl_plain_password_file, names a file or an environment variable that holds the value."
    ),
]
ConnectTimeout = Annotated[float, typer.Option(min=0, help="Seconds to go on trying while the broker does not answer.")]


_OAUTH_TOKEN: Final = "sasl_oauth_token"
_OAUTH_PROVIDER: Final = "sasl_oauth_token_provider"


def connection(bootstrap: str, client_config: Path | None, connect_timeout: float) -> Connection:
    """The connection that the options describe; secrets stay in their files or in the environment.

    Raises:
        ConfigError: the file cannot be read or is not TOML, or holds a setting that cannot be made. Never quotes a
            value.
    """
    if os.environ.get("PRECTR_DEBUG", "") in ("", "0"):
        silence_client_logs()
    if client_config is None:
        return Connection(bootstrap, connect_timeout=connect_timeout)
    try:
        settings = tomllib.loads(client_config.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{client_config}: the client settings cannot be read: {error.strerror}") from error
    except ValueError as error:
        # The text of a TOML error may quote the line, and the line may be a password.
        raise ConfigError(f"{client_config}: the client settings are not TOML") from error
    try:
        return Connection(bootstrap, _client_settings(settings, client_config.parent), connect_timeout)
    except ConfigError as error:
        raise ConfigError(f"{client_config}: {error}") from error.__cause__


def _client_settings(given: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The client's settings, those that lie in a file or in the environment fetched from there.

    A file's name is relative to the folder of the settings.
    """
    known = known_settings()
    settings: dict[str, Any] = {}
    for name, value in given.items():
        setting, _, source = name.rpartition("_")
        if name == _OAUTH_PROVIDER:
            raise ConfigError(f"client setting {name}: give {_OAUTH_TOKEN}_file, a file that holds the token")
        if name in known or source not in ("file", "env") or setting not in (*known, _OAUTH_TOKEN):
            settings[name] = value
            continue
        if not isinstance(value, str):
            raise ConfigError(f"client setting {name}: must be text, in quotes")
        if setting in given:
            raise ConfigError(f"client setting {name}: {setting} is there too: remove one of them")
        fetch = partial(_from_file, name, folder / value) if source == "file" else partial(_from_variable, name, value)
        found = fetch()
        if setting == _OAUTH_TOKEN:
            settings[_OAUTH_PROVIDER] = TokenProvider(fetch)
        else:
            settings[setting] = found
    return settings


def _from_file(name: str, path: Path) -> str:
    """The text of a file, without the line end that editors put behind it."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"client setting {name}: {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"client setting {name}: {path} is not text in UTF-8") from error
    if not text.strip():
        raise ConfigError(f"client setting {name}: {path} is empty")
    return text.rstrip("\r\n")


def _from_variable(name: str, variable: str) -> str:
    text = os.environ.get(variable, "")
    if not text:
        raise ConfigError(f"client setting {name}: the environment variable {variable} is not set, or is empty")
    return text
