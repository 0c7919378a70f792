"""Settings as options of a command: help, default and range come from the declaration of the setting."""

import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Annotated, Any, Final

import typer

from prectr.ops.settings.fields import FIELDS
from prectr.ops.settings.reference import ANY, allowed_values, default_of, value_text

_METAVARS: Final = {int: "INTEGER", float: "NUMBER"}


def setting_option(name: str, remark: str = "") -> Any:
    """Return the `typer.Option` of a setting, for `Annotated[str | None, setting_option("batch_span")] = None`.

    remark: what a command adds to the meaning of the setting.
    """
    field = FIELDS[name]
    default = value_text(name, default_of(field)) or "none"
    allowed = allowed_values(field)
    limits = f"Default {default}." if allowed == ANY else f"Default {default}; {allowed}."
    default_is_list = isinstance(field.default, tuple)
    kind = "DURATION" if field.is_duration else _METAVARS.get(field.kind, "LIST" if default_is_list else "NAME")
    return typer.Option(
        help=" ".join(filter(None, (field.setting.help, remark, limits))),
        metavar="DURATIONS" if field.is_duration and default_is_list else kind,
        show_default=False,
    )


def with_setting_options(names: Iterable[str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add an option for each setting to a command, which receives those that were given as `overrides`."""
    options = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, setting_option(name)]
        )
        for name in names
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def call(**values: Any) -> None:
            overrides = {option.name: values.pop(option.name, None) for option in options}
            command(**values, overrides=overrides)

        own = [each for each in inspect.signature(command).parameters.values() if each.name != "overrides"]
        keyword_only = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
        call.__signature__ = inspect.Signature([*keyword_only, *options])  # type: ignore[attr-defined]
        return call

    return decorate
