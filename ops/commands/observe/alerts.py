"""`prectr alerts`: the alerting rules for Prometheus, with links that lead somewhere."""

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import typer

from prectr.state.errors import UsageError

_RULES: Final = ("alerts", "prectr.rules.yml")
_RUNBOOK: Final = "runbook_url: docs/"
_DASHBOARD: Final = "dashboard: /d/"


def alerts(
    docs_url: Annotated[
        str | None,
        typer.Option(help="Where the folder docs/ is served; runbook_url is relative without it.", show_default=False),
    ] = None,
    grafana_url: Annotated[
        str | None,
        typer.Option(help="Address of Grafana; the dashboards are relative without it.", show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the rules to this file instead of standard output.")] = None,
) -> None:
    """Print the recording and alerting rules for Prometheus, with absolute links to runbook and dashboards.

    Example: prectr alerts --docs-url https://git.example.org/prectr/docs --out prectr.rules.yml
    """
    text = files("prectr.ops").joinpath(*_RULES).read_text(encoding="utf-8")
    if docs_url is not None:
        text = text.replace(_RUNBOOK, f"runbook_url: {_checked('--docs-url', docs_url)}/")
    if grafana_url is not None:
        text = text.replace(_DASHBOARD, f"dashboard: {_checked('--grafana-url', grafana_url)}/d/")
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")


def _checked(option: str, url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or set(url) & set(" \"'#{}"):
        raise UsageError(f"{option} {url}: must be an address such as https://git.example.org/prectr/docs")
    return url.rstrip("/")
