"""What the field of a settings dataclass declares about itself: meaning, unit and allowed values."""

import dataclasses
import math
from collections.abc import Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Annotated, Any, Final, NamedTuple, get_args, get_origin, get_type_hints

from prectr.state.errors import ConfigError

YEAR: Final = 366 * 86400.0
"""Seconds; the upper limit of durations."""
UNIT_SECONDS: Final[Mapping[str, float]] = MappingProxyType(
    {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
)
"""The units of durations, largest first."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Annotation of a field: `Annotated[float, Setting(help="…", unit="s", ge=0.001, le=YEAR)]`.

    Everything else follows from the field: TOML key, environment variable, flag, checks, error texts, documentation.

    help: one or two sentences. unit: `s` for a duration in seconds, which may then be written `90s` or `2h`; any other
    unit is only shown. ge, le: the least and the greatest value, of every number in a tuple. choices: the only values.
    max_length: of a tuple, which then has at least one element; None: any length. rising: each number of a tuple is
    above the one before.
    """

    help: str
    unit: str | None = None
    ge: float | None = None
    le: float | None = None
    choices: tuple[str, ...] = ()
    max_length: int | None = None
    rising: bool = False

    def describe_range(self) -> str:
        """Return the allowed values in words, such as `at least 1, at most 1,024`; empty if any value is allowed."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        bounds = (("at least", self.ge), ("at most", self.le))
        words = [f"{word} {self.format_bound(bound)}" for word, bound in bounds if bound is not None]
        if self.max_length is not None:
            words.append(f"1 to {self.max_length} of them")
        if self.rising:
            words.append("rising")
        return ", ".join(words)

    def format_bound(self, bound: float) -> str:
        """Return a bound as documentation and messages show it."""
        return format_duration(bound) if self.unit == "s" else format_number(bound)

    def refusal(self) -> str:
        """Return what is wrong with a value that is not allowed, as the end of a message."""
        allowed = self.describe_range()
        return f"is not {allowed}" if self.choices else f"is out of range: it must be {allowed or 'finite'}"

    def allows(self, value: object) -> bool:
        """Return whether a value of the field's type is allowed; each element of a tuple must be."""
        if isinstance(value, tuple):
            if self.max_length is not None and not 1 <= len(value) <= self.max_length:
                return False
            rises = all(before < after for before, after in pairwise(value)) if self.rising else True
            return rises and all(self.allows(each) for each in value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return not self.choices or value in self.choices
        if isinstance(value, float) and not math.isfinite(value):
            return False
        return (self.ge is None or value >= self.ge) and (self.le is None or value <= self.le)


class SettingField(NamedTuple):
    """A field of a settings dataclass. kind: its type without the annotation."""

    name: str
    kind: Any
    default: object
    setting: Setting

    @property
    def is_duration(self) -> bool:
        """Whether the value is a duration in seconds, or a list of them."""
        return self.setting.unit == "s"


def fields_of(*configs: type) -> Mapping[str, SettingField]:
    """Return the settings that the dataclasses declare, by name, in order of declaration.

    Raises TypeError for a field without a `Setting`, and for a name that occurs twice.
    """
    fields: dict[str, SettingField] = {}
    for config in configs:
        hints = get_type_hints(config, include_extras=True)
        for field in dataclasses.fields(config):
            hint = hints[field.name]
            settings = [each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Setting)]
            if get_origin(hint) is not Annotated or len(settings) != 1:
                raise TypeError(f"{config.__name__}.{field.name} declares no Setting")
            if field.name in fields:
                raise TypeError(f"two settings have the name {field.name}")
            fields[field.name] = SettingField(field.name, get_args(hint)[0], field.default, settings[0])
    return MappingProxyType(fields)


def check_config(config: Any) -> None:
    """Raise ConfigError for the first field of a settings dataclass whose value is not allowed, with its name."""
    for field in fields_of(type(config)).values():
        value = getattr(config, field.name)
        if not field.setting.allows(value):
            raise ConfigError(f"{field.name}: {value!r} {field.setting.refusal()}")


def format_number(number: float) -> str:
    """Return a number as documentation and messages show it: thousands grouped, no trailing zeros, `1e-6`."""
    if float(number).is_integer() and abs(number) < 1e15:
        return f"{int(number):,}"
    return f"{number:g}".replace("e-0", "e-")


def format_duration(seconds: float) -> str:
    """Return a duration in its largest whole unit, such as `90s` or `7d`; reading it gives the same number."""
    for unit, size in UNIT_SECONDS.items():
        count = round(seconds / size)
        if count >= 1 and count * size == seconds:
            return f"{count}{unit}"
    return "0s" if seconds == 0 else f"{seconds!r}s"
