"""Settings: defaults, then a TOML file, then `PRECTR_*`, then flags; each value checked, each error says whence."""

import dataclasses
import difflib
import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

from prectr.model.config import TrainerConfig
from prectr.state.errors import ConfigError
from prectr.stream.config import PipelineConfig

ENVIRONMENT_PREFIX: Final = "PRECTR_"
OTHER_VARIABLES: Final = ("PRECTR_CONFIG", "PRECTR_DEBUG", "PRECTR_LOG_LEVEL", "PRECTR_LOG_FORMAT")
"""Variables that are no settings: the file to read, and tracebacks instead of one-line errors."""

_YEAR: Final = 366 * 86400.0
_DURATION: Final = re.compile(r"([0-9.eE+-]+)\s*(ms|s|m|h|d)?")
_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}


class _Range(NamedTuple):
    low: float
    high: float
    exclusive: bool = False
    """Whether the value must be greater than `low`, not only as large."""


_POSITIVE_DURATION: Final = _Range(0, _YEAR, exclusive=True)
_POSITIVE_RATE: Final = _Range(0, 1e6, exclusive=True)
_COUNT: Final = _Range(1, 1 << 30)
_DURATIONS: Final[Mapping[str, _Range]] = MappingProxyType(
    {
        "attribution_window": _POSITIVE_DURATION,
        "allowed_lateness": _Range(0, _YEAR),
        "max_clock_skew": _POSITIVE_DURATION,
        "dedup_retention": _Range(0, _YEAR),
        "half_life": _Range(0, 100 * _YEAR, exclusive=True),
        "user_ttl": _Range(0, 100 * _YEAR, exclusive=True),
        "query_ttl": _Range(0, 100 * _YEAR, exclusive=True),
        "batch_span": _POSITIVE_DURATION,
    }
)
_RANGES: Final[Mapping[str, _Range]] = MappingProxyType(
    {
        **_DURATIONS,
        "partitions": _Range(1, 1024),
        "history_clicks": _Range(0, 1000),
        "query_clicks": _Range(0, 1000),
        "batch_pages": _Range(1, 1 << 16),
        "seed": _Range(0, (1 << 63) - 1),
        "threads": _Range(0, 1024),
        "embedding_rows": _COUNT,
        "embedding_dim": _Range(1, 4096),
        "embedding_lr": _POSITIVE_RATE,
        "hidden": _Range(1, 1 << 16),
        "dense_lr": _POSITIVE_RATE,
        "wide_rows": _COUNT,
        "ftrl_alpha": _POSITIVE_RATE,
        "prior_rates_size": _COUNT,
        "encoder_lr": _POSITIVE_RATE,
        "encoder_share": _Range(0, 1),
        "pair_cache_size": _COUNT,
        "pair_refresh": _COUNT,
        "rehearsal_pairs": _Range(1, 1 << 16),
        "exposure_sketch_size": _COUNT,
        "exposed_pairs_bits": _COUNT,
    }
)
_ANY_NUMBER: Final = _Range(0, 1e12)
"""For the numbers not named above: none of ours is negative."""
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "device": ("auto", "cpu", "cuda"),
        "level_source": ("auto", "logged", "inferred"),
        "exposure": ("auto", "on", "off"),
        "debias": ("hinge", "prior_adjustment", "prior_adjustment+soft"),
    }
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole configuration of a run."""

    pipeline: PipelineConfig
    trainer: TrainerConfig


class _RawSetting(NamedTuple):
    key: str
    value: object
    source: str


def _fields_of(*configs: type) -> dict[str, Any]:
    """Return the type of every setting by its name; the names of two configurations must differ."""
    fields: dict[str, Any] = {}
    for config in configs:
        hints = get_type_hints(config)
        if shared := fields.keys() & hints.keys():
            raise TypeError(f"two settings have the name {shared.pop()}")
        fields |= hints
    return fields


_FIELDS: Final = MappingProxyType(_fields_of(PipelineConfig, TrainerConfig))


def load_settings(
    config_file: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Return the settings: the defaults, replaced by the file's, those by `PRECTR_*`, those by `overrides`.

    config_file: TOML with flat keys, the settings' names; where None, the file that PRECTR_CONFIG names.
    overrides: what flags gave, by setting; None is a flag not given. environ: by default the process's.
    Durations are seconds, or text such as `500ms`, `90s`, `10m`, `2h`, `1d`; lists are separated by commas.

    Raises ConfigError for an unknown name (and names the nearest), a wrong type or a value out of range,
    always with the value and where it came from.
    """
    environ = os.environ if environ is None else environ
    config_file = config_file or environ.get("PRECTR_CONFIG") or None
    values: dict[str, Any] = {}
    for given in (*_from_file(config_file), *_from_environment(environ), *_from_flags(overrides or {})):
        values[given.key] = _validate(given)
    return Settings(
        pipeline=PipelineConfig(**{name: values[name] for name in _field_names(PipelineConfig) & values.keys()}),
        trainer=TrainerConfig(**{name: values[name] for name in _field_names(TrainerConfig) & values.keys()}),
    )


def describe(settings: Settings) -> dict[str, Any]:
    """Return every setting by its name, as JSON has it, for reports and for comparing configurations."""
    described: dict[str, Any] = msgspec.to_builtins(settings.pipeline) | msgspec.to_builtins(settings.trainer)
    return described


def _field_names(config: type) -> set[str]:
    return {field.name for field in dataclasses.fields(config)}


def _from_file(path: str | os.PathLike[str] | None) -> Iterator[_RawSetting]:
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
        if key not in _FIELDS:
            raise ConfigError(f"{path}: there is no setting {key!r}{_suggestion(key, _FIELDS)}")
        yield _RawSetting(key, value, os.fspath(path))


def _from_environment(environ: Mapping[str, str]) -> Iterator[_RawSetting]:
    variables = {ENVIRONMENT_PREFIX + key.upper(): key for key in _FIELDS}
    for variable in sorted(environ):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in OTHER_VARIABLES:
            continue
        if variable not in variables:
            known = (*variables, *OTHER_VARIABLES)
            raise ConfigError(
                f"there is no setting for the environment variable {variable}{_suggestion(variable, known)}"
            )
        yield _RawSetting(variables[variable], environ[variable], f"environment variable {variable}")


def _from_flags(overrides: Mapping[str, object]) -> Iterator[_RawSetting]:
    for key, value in overrides.items():
        if key not in _FIELDS:
            raise ConfigError(f"there is no setting {key!r}{_suggestion(key, _FIELDS)}")
        if value is not None:
            yield _RawSetting(key, value, f"--{key.replace('_', '-')}")


def _suggestion(name: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name.lower(), [key.lower() for key in known], n=1, cutoff=0.5)
    if not near:
        return f"; there are {', '.join(sorted(known))}"
    return f"; the nearest is {next(key for key in known if key.lower() == near[0])}"


def _validate(given: _RawSetting) -> object:
    """Return the value in the setting's type, within its range."""
    kind = _FIELDS[given.key]
    value = _parse(given, kind) if isinstance(given.value, str) else given.value
    choices = get_args(kind) if get_origin(kind) is Literal else _CHOICES.get(given.key)
    if choices and value not in choices:
        raise _invalid(given, f"is none of {', '.join(choices)}")
    try:
        converted: object = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _invalid(given, f"is of a wrong kind: {error}") from error
    for part in converted if isinstance(converted, tuple) else (converted,):
        _check_range(given, part)
    return converted


def _parse(given: _RawSetting, kind: Any) -> object:
    """Read a setting from text, as environment variables (and durations in a file) are given."""
    text = str(given.value).strip()
    if get_origin(kind) is tuple:
        return [_parse_number(given, part.strip(), get_args(kind)[0]) for part in text.split(",") if part.strip()]
    if given.key in _DURATIONS:
        return _parse_duration(given, text)
    return _parse_number(given, text, kind)


def _parse_number(given: _RawSetting, text: str, kind: Any) -> object:
    if kind not in (int, float):
        return text
    try:
        return kind(text)
    except ValueError as error:
        raise _invalid(given, f"is not a {'whole ' if kind is int else ''}number") from error


def _parse_duration(given: _RawSetting, text: str) -> float:
    if match := _DURATION.fullmatch(text):
        try:
            return float(match[1]) * _UNIT_SECONDS[match[2]]
        except ValueError:
            pass
    raise _invalid(given, "is not a duration: give seconds, or a number with ms, s, m, h or d")


def _check_range(given: _RawSetting, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    low, high, exclusive = _RANGES.get(given.key, _ANY_NUMBER)
    if not math.isfinite(value) or value < low or value > high or (exclusive and value == low):
        raise _invalid(
            given, f"is out of range: it must be {'more than' if exclusive else 'at least'} {low:g}, at most {high:g}"
        )


def _invalid(given: _RawSetting, what: str) -> ConfigError:
    return ConfigError(f"{given.key}: {given.value!r} ({given.source}) {what}")
