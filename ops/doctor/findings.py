"""What a check of the live system found: one line each, with what to do about it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from prectr.state.errors import PrectrError

Severity = Literal["ok", "warning", "error"]
_STYLES: Final = {"ok": "green", "warning": "yellow", "error": "bold red"}


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at.

    name: what it is, such as `search-events max.message.bytes`. seen: the value found, in words. advice: what to do,
    as an exact command or setting; empty where all is well.
    """

    name: str
    severity: Severity
    observed: str
    advice: str = ""


def print_findings(findings: Sequence[Finding], title: str, json: Path | None = None) -> None:
    """Print one line a finding to stdout, advice below it; and write them to the file `json`, for a program.

    Raises:
        PrectrError: a finding is an error; its first names the thing and what to do.
    """
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(findings)) + b"\n")
    console = Console(soft_wrap=True, highlight=False)
    console.print(Text(title, style="bold"))
    for finding in findings:
        text = Text(f"{finding.severity:<8}", style=_STYLES[finding.severity])
        console.print(text.append(f"{finding.name}: {finding.observed}", style="default"))
        if finding.advice:
            console.print(Text(f"         → {finding.advice}"))
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raise PrectrError(
            f"{len(errors)} of {len(findings)} checks failed, first {errors[0].name}: {errors[0].observed}. "
            f"{errors[0].advice}"
        )
