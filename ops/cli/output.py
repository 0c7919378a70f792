"""Consoles for the result of a command, to which untrusted text may be printed."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from prectr.ops.cli.terminal_escape import printable_lines


class EscapingConsole(Console):
    """A console that shows control characters of what it prints, such as terminal escapes, as their escapes."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render to segments without control characters, except those of the console itself."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable_lines(segment.text), segment.style)


def stdout_console(file_width: int | None = None, **options: Any) -> EscapingConsole:
    """Return a console for the result of a command, on stdout.

    Args:
        file_width: columns where the output is not a terminal.
        options: of `rich.console.Console`.
    """
    console = EscapingConsole(**options)
    if file_width is not None and not console.is_terminal:
        console.width = file_width
    return console
