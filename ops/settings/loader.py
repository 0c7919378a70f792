"""Settings: defaults, replaced by a TOML file's, those by `PRECTR_*`, those by flags; each is checked."""

import dataclasses
import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec

from prectr.model.config import TrainerConfig
from prectr.ops.settings.fields import FIELDS, read_value
from prectr.state.errors import ConfigError
from prectr.stream.config import PipelineConfig

ENVIRONMENT_PREFIX: Final = "PRECTR_"
OTHER_VARIABLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "PRECTR_ALLOWED_HOSTS": "Host names by which a process may be addressed over HTTP, separated by spaces: "
        "see `--allowed-host`.",
        "PRECTR_CONFIG": "TOML file with settings, where a command is given no `--config`.",
        "PRECTR_DEBUG": "`1`: an error shows its traceback.",
        "PRECTR_LOG_LEVEL": "Least severity to log: `debug`, `info`, `warning` or `error`.",
        "PRECTR_LOG_FORMAT": "`console` or `json`.",
        "PRECTR_NATIVE": "`0`: the stages run in Python, `1`: in the native core, and it is an error if that is not "
        "built. By default, the native core where it is built; the results are the same.",
        "PRECTR_REGISTRY_USER": "User of the schema registry that `prectr ingest --registry` names.",
        "PRECTR_REGISTRY_PASSWORD": "Its password.",
    }
)
"""Environment variables that are no settings, and what each is for."""

_KUBERNETES_NAME: Final = re.compile(
    r"PRECTR_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)"
)
"""Variables that Kubernetes injects for a Service named prectr or prectr-…, such as `PRECTR_SERVICE_HOST`;"""
_KUBERNETES_PORT: Final = re.compile(r"PRECTR_(\w+_)?PORT=(tcp|udp|sctp)://.*")
"""and one whose name says too little without its value."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a run. sources: where each value that is not the default came from, by name of the setting."""

    pipeline: PipelineConfig
    trainer: TrainerConfig
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False)


class _GivenSetting(NamedTuple):
    key: str
    value: object
    source: str


def load_settings(
    config_file: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    overrides_are_flags: bool = True,
) -> Settings:
    """Return the settings: the defaults, replaced by the file's, those by `PRECTR_*`, those by `overrides`.

    config_file: TOML with the settings' names as top-level keys; if None, the file that PRECTR_CONFIG names.
    overrides: values of flags, or of arguments of a function, by setting; None: not given. environ: by default that of
    the process.
    Durations are seconds, or text such as `500ms`, `90s`, `10m`, `2h`, `1d`; lists are separated by commas.

    Raises ConfigError for an unknown name (with the nearest one), a wrong type or a value that is not allowed,
    always with the value and its source.
    """
    environ = os.environ if environ is None else environ
    config_file = config_file or environ.get("PRECTR_CONFIG") or None
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for key, value, source in (
        *_from_file(config_file),
        *_from_environment(environ),
        *_from_overrides(overrides or {}, overrides_are_flags),
    ):
        values[key] = read_value(FIELDS[key], value, source)
        sources[key] = source
    return Settings(
        pipeline=PipelineConfig(**_values_of(PipelineConfig, values)),
        trainer=TrainerConfig(**_values_of(TrainerConfig, values)),
        sources=sources,
    )


def describe(settings: Settings) -> dict[str, Any]:
    """Return every setting by name, as JSON has it, for reports and for comparing configurations."""
    described: dict[str, Any] = msgspec.to_builtins(settings.pipeline) | msgspec.to_builtins(settings.trainer)
    return described


def environment_variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return ENVIRONMENT_PREFIX + name.upper()


def _values_of(config: type, values: Mapping[str, Any]) -> dict[str, Any]:
    return {field.name: values[field.name] for field in dataclasses.fields(config) if field.name in values}


def _from_file(path: str | os.PathLike[str] | None) -> Iterator[_GivenSetting]:
    if path is None:
        return
    try:
        text = Path(path).read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"the configuration {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"the configuration {path} is not TOML: {error}") from error
    for key, value in table.items():
        if isinstance(value, dict):
            raise ConfigError(f"{path}: {key!r} is a table, and settings have no sections: put each key at the top")
        if key not in FIELDS:
            raise ConfigError(f"{path}: there is no setting {key!r}{_suggestion(key, FIELDS)}")
        yield _GivenSetting(key, value, os.fspath(path))


def _from_environment(environ: Mapping[str, str]) -> Iterator[_GivenSetting]:
    variables = {environment_variable(key): key for key in FIELDS}
    for variable in sorted(environ):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in OTHER_VARIABLES:
            continue
        if variable in variables:
            yield _GivenSetting(variables[variable], environ[variable], f"environment variable {variable}")
        elif not _is_injected(variable, environ[variable]):
            raise ConfigError(
                f"there is no setting for the environment variable {variable}"
                f"{_suggestion(variable, (*variables, *OTHER_VARIABLES))}"
            )


def _is_injected(variable: str, value: str) -> bool:
    """Return whether Kubernetes has set a variable."""
    return bool(_KUBERNETES_NAME.fullmatch(variable) or _KUBERNETES_PORT.fullmatch(f"{variable}={value}"))


def _from_overrides(overrides: Mapping[str, object], are_flags: bool) -> Iterator[_GivenSetting]:
    for key, value in overrides.items():
        if key not in FIELDS:
            raise ConfigError(f"there is no setting {key!r}{_suggestion(key, FIELDS)}")
        if value is not None:
            source = f"--{key.replace('_', '-')}" if are_flags else f"argument {key}"
            yield _GivenSetting(key, value, source)


def _suggestion(name: str, known: Iterable[str]) -> str:
    by_lower_case = {key.lower(): key for key in known}
    near = difflib.get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.5)
    if not near:
        return f"; there are {', '.join(sorted(by_lower_case.values()))}"
    return f"; the nearest is {by_lower_case[near[0]]}"
