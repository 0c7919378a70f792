"""The findings of the checks: one line each, with advice."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from prectr.ops.cli.output import stdout_console
from prectr.ops.json_file import write_json
from prectr.state.errors import PrectrError

Severity = Literal["ok", "warning", "error"]
_STYLES: Final = {"ok": "green", "warning": "yellow", "error": "bold red"}


class Finding(msgspec.Struct, frozen=True):
    """The result of one check.

    name: what was checked, such as `search-events max.message.bytes`. observed: the value found. advice: what to do,
    as a command or setting; empty if `severity` is ok.
    """

    name: str
    severity: Severity
    observed: str
    advice: str = ""


def print_findings(findings: Sequence[Finding], title: str, json: Path | None = None) -> None:
    """Print one line per finding to stdout, with its advice below; also write all findings to the file `json`.

    Raises:
        PrectrError: a finding is an error; the message has the first one and its advice.
    """
    from rich.text import Text  # noqa: PLC0415

    write_json(json, findings)
    console = stdout_console(soft_wrap=True, highlight=False)
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
