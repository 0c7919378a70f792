"""Every setting of a run by name, and how a value for it is read and checked."""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, get_args, get_origin

import msgspec

from prectr.model.config import TrainerConfig
from prectr.state.errors import ConfigError
from prectr.state.setting import UNIT_SECONDS, SettingField, fields_of
from prectr.stream.config import PipelineConfig

FIELDS: Final[Mapping[str, SettingField]] = fields_of(PipelineConfig, TrainerConfig)

_DURATION: Final = re.compile(r"([0-9.eE+-]+)\s*(ms|s|m|h|d)?")


def read_value(field: SettingField, given: object, source: str) -> object:
    """Return a value in the setting's type.

    given: as TOML, a flag or a caller has it, or text. source: named in the error.
    Raises ConfigError where it is of another type, or not allowed: with the name, the value and what is allowed.
    """
    try:
        value = _parse(field, given.strip()) if isinstance(given, str) else _parse_elements(field, given)
        converted: object = msgspec.convert(value, _base_type(field.kind))
    except msgspec.ValidationError as error:
        raise _invalid(field, given, source, f"has the wrong type: {error}") from error
    except ValueError as error:
        raise _invalid(field, given, source, str(error)) from error
    if not field.setting.allows(converted):
        raise _invalid(field, given, source, field.setting.refusal())
    return converted


def _base_type(kind: Any) -> Any:
    return str if get_origin(kind) is Literal else kind


def _parse(field: SettingField, text: str) -> object:
    """Read a value from text, as environment variables have it, and TOML for durations."""
    if get_origin(field.kind) is tuple:
        (element, *_) = get_args(field.kind)
        parts = [part.strip() for part in text.split(",") if part.strip()]
        return [_parse_duration(part) if field.is_duration else _parse_number(part, element) for part in parts]
    return _parse_duration(text) if field.is_duration else _parse_number(text, field.kind)


def _parse_elements(field: SettingField, given: object) -> object:
    """Read the durations of a list that TOML has as text."""
    if field.is_duration and isinstance(given, list):
        return [_parse_duration(each.strip()) if isinstance(each, str) else each for each in given]
    return given


def _parse_number(text: str, kind: Any) -> object:
    if kind not in (int, float):
        return text
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"is not a {'whole ' if kind is int else ''}number") from None


def _parse_duration(text: str) -> float:
    if match := _DURATION.fullmatch(text):
        try:
            return float(match[1]) * UNIT_SECONDS[match[2] or "s"]
        except ValueError:
            pass
    raise ValueError("is not a duration: give seconds, or a number with ms, s, m, h or d")


def _invalid(field: SettingField, given: object, source: str, reason: str) -> ConfigError:
    return ConfigError(f"{field.name}: {given!r} ({source}) {reason}")
