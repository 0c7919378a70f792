"""Builds a connection from the connection options; reads the Kafka client settings from a TOML file."""

import os
import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from prectr.state.errors import ConfigError
from prectr.stream.kafka.client.client import Connection, known_settings
from prectr.stream.kafka.client.client_internals import silence_client_logs
from prectr.stream.kafka.client.oauth import TokenProvider

_OAUTH_TOKEN: Final = "sasl_oauth_token"
_OAUTH_PROVIDER: Final = "sasl_oauth_token_provider"


def connection(bootstrap: str, client_config: Path | None, connect_timeout: float) -> Connection:
    """Build a connection; secrets stay in their files or in the environment.

    Args:
        bootstrap: brokers, `host:port`, comma-separated.
        client_config: TOML file with kafka-python client settings.
        connect_timeout: seconds to keep retrying while the broker does not answer.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or has an invalid setting. The message never quotes a value.
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
    """Resolve `NAME_file` and `NAME_env` settings; file names are relative to `folder`."""
    known = known_settings()
    settings: dict[str, Any] = {}
    for name, value in given.items():
        setting, _, source = name.rpartition("_")
        if name == _OAUTH_PROVIDER:
            raise ConfigError(f"client setting {name}: set {_OAUTH_TOKEN}_file to a file with the token")
        if name in known or source not in ("file", "env") or setting not in (*known, _OAUTH_TOKEN):
            settings[name] = value
            continue
        if not isinstance(value, str):
            raise ConfigError(f"client setting {name}: must be a quoted string")
        if setting in given:
            raise ConfigError(f"client setting {name}: {setting} is set too: remove one of them")
        fetch = partial(_from_file, name, folder / value) if source == "file" else partial(_from_variable, name, value)
        found = fetch()
        if setting == _OAUTH_TOKEN:
            settings[_OAUTH_PROVIDER] = TokenProvider(fetch)
        else:
            settings[setting] = found
    return settings


def _from_file(name: str, path: Path) -> str:
    """Read a text file without its trailing line break."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"client setting {name}: {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"client setting {name}: {path} is not UTF-8 text") from error
    if not text.strip():
        raise ConfigError(f"client setting {name}: {path} is empty")
    return text.rstrip("\r\n")


def _from_variable(name: str, variable: str) -> str:
    text = os.environ.get(variable, "")
    if not text:
        raise ConfigError(f"client setting {name}: the environment variable {variable} is not set or is empty")
    return text
