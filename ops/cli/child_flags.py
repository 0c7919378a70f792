"""Passes the options of one command on to a process of another."""

from collections.abc import Collection

import click
import typer

from prectr.ops.cli.main import load_command


def child_flags(command: str, context: typer.Context, *, excluded: Collection[str] = ()) -> list[str]:
    """The options of the running command that `command` has too, as flags with their values.

    Args:
        command: name of a `prectr` command.
        context: of the running command.
        excluded: options, by parameter name, that are not passed on.
    """
    accepted = {option.name for option in load_command(command).params} - set(excluded)
    flags: list[str] = []
    for option in context.command.params:
        if not isinstance(option, click.Option) or option.name not in accepted:
            continue
        value = context.params[option.name]
        if value is True:
            flags.append(option.opts[0])
        elif value is not None and value is not False:
            flags.append(f"{option.opts[0]}={value}")
    return flags
