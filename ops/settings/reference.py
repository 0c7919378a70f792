"""The settings of a run as a table, as TOML, and as the page docs/configuration.md."""

import json
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from prectr.model.config import TrainerConfig
from prectr.ops.settings.fields import FIELDS
from prectr.ops.settings.loader import OTHER_VARIABLES, Settings, describe, environment_variable
from prectr.state.setting import SettingField, fields_of, format_duration
from prectr.stream.config import PipelineConfig

SettingValue = str | int | float | list[str | int | float]
"""The value of a setting as JSON has it; durations are seconds."""

ANY: Final = "any"
"""Shown for a setting without range or choices."""


class SettingRow(msgspec.Struct, frozen=True, kw_only=True):
    """One setting. allowed: its range or choices in words. source: `default`, the file, the variable or the flag."""

    name: str
    value: SettingValue
    default: SettingValue
    unit: str | None
    minimum: float | None
    maximum: float | None
    choices: list[str]
    allowed: str
    meaning: str
    environment_variable: str
    source: str


def setting_rows(settings: Settings) -> list[SettingRow]:
    """Return every setting of a run, in order of declaration."""
    values = describe(settings)
    return [
        SettingRow(
            name=name,
            value=values[name],
            default=default_of(field),
            unit=field.setting.unit,
            minimum=field.setting.ge,
            maximum=field.setting.le,
            choices=list(field.setting.choices),
            allowed=allowed_values(field),
            meaning=field.setting.help,
            environment_variable=environment_variable(name),
            source=settings.sources.get(name, "default"),
        )
        for name, field in FIELDS.items()
    ]


def default_of(field: SettingField) -> SettingValue:
    """Return the default of a setting as JSON has it."""
    default: SettingValue = msgspec.convert(field.default, SettingValue)
    return default


def allowed_values(field: SettingField) -> str:
    """Return the range or the choices of a setting in words, such as `1ms – 366d` or `1 – 1,024`."""
    setting = field.setting
    if setting.choices:
        return ", ".join(setting.choices)
    if setting.ge is None or setting.le is None:
        return ANY
    allowed = " – ".join(setting.format_bound(bound) for bound in (setting.ge, setting.le))
    allowed += " each" if isinstance(field.default, tuple) else ""
    allowed += f", 1 – {setting.max_length} of them" if setting.max_length is not None else ""
    return allowed + (", rising" if setting.rising else "")


def value_text(name: str, value: SettingValue) -> str:
    """Return a value as an environment variable or a flag takes it."""
    if isinstance(value, list | tuple):
        return ",".join(value_text(name, each) for each in value)
    if FIELDS[name].is_duration and not isinstance(value, str):
        return format_duration(value)
    return str(value)


def toml_text(settings: Settings) -> str:
    """Return a TOML file that sets every setting to its value in `settings`, with meaning, range and default above."""
    lines = [
        "# Settings of prectr. A command reads them with --config FILE, or from the file named in PRECTR_CONFIG.",
        "",
    ]
    for row in setting_rows(settings):
        unit = f" {row.unit}" if row.unit not in (None, "s") else ""
        default = value_text(row.name, row.default) or "none"
        lines += [f"# {row.meaning}", f"# Allowed: {row.allowed}. Default: {default}{unit}."]
        value = value_text(row.name, row.value) if FIELDS[row.name].is_duration else row.value
        lines += [f"{row.name} = {_toml_value(value)}", ""]
    return "\n".join(lines)


def _toml_value(value: SettingValue) -> str:
    """Return a value in TOML, whose strings and arrays are those of JSON but for the control character DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


_INTRODUCTION: Final = """\
# Configuration
<!-- Generated from the code: prectr settings --markdown docs/configuration.md -->
A setting is given, in rising order of precedence,

1. in a TOML file, as a top-level key: `prectr replay … --config prectr.toml`, or the file named in `PRECTR_CONFIG`;
2. as an environment variable, `PRECTR_` and the name in upper case: `PRECTR_ATTRIBUTION_WINDOW=10m`;
3. as a flag of the commands that have one: `--batch-span 1d`.

```console
$ prectr settings                       # every setting, its value and where it came from
$ prectr settings --toml prectr.toml    # a commented file to start from
```

Durations are seconds, or a number with `ms`, `s`, `m`, `h` or `d`. A list is an array in TOML, and text with commas in
variables and flags. An unknown name, a wrong type or a value out of range ends the command with exit code 2 before any
work is done. Variables that Kubernetes injects for a Service named `prectr` (such as `PRECTR_PORT`) are ignored.

The settings are part of the identity of a run: a run resumes only under the settings it was started with.
"""
_SECTIONS: Final = (
    ("Pipeline", "Read by the stages `join` and `aggregate` (`prectr replay`, `stream`, `run`).", PipelineConfig),
    ("Trainer", "Read by the trainer (`prectr replay`, `train`, `run`).", TrainerConfig),
)


def markdown_text() -> str:
    """Return the page docs/configuration.md: every setting with default, range and meaning."""
    return "\n".join([_INTRODUCTION, *_section_lines(), *_variable_lines()])


def _section_lines() -> Iterator[str]:
    for title, introduction, config in _SECTIONS:
        yield f"## {title}\n{introduction}\n"
        yield from _table_head(("setting", "default", "allowed", "unit", "meaning"))
        for name, field in fields_of(config).items():
            default = value_text(name, default_of(field))
            unit = "" if field.is_duration else field.setting.unit or ""
            cells = (
                f"`{name}`",
                f"`{default}`" if default else "none",
                allowed_values(field),
                unit,
                field.setting.help,
            )
            yield f"| {' | '.join(cells)} |"
        yield ""


def _variable_lines() -> Iterator[str]:
    yield "## Other environment variables"
    yield from _table_head(("variable", "meaning"))
    yield from (f"| `{name}` | {meaning} |" for name, meaning in OTHER_VARIABLES.items())
    yield ""


def _table_head(columns: Sequence[str]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
