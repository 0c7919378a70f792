"""Asks a Prometheus over HTTP, and rewrites queries and rules so that minutes of a test show what days would."""

import json
import math
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

WINDOW = "20s"
"""In place of every window of a query or a rule."""
_STEP = 2.0
_BRACED = re.compile(r"(\{[^}]*\}|\[[^\]]*\])")
_COMPARED = re.compile(r"(==|!=|>=|<=|>|<)(?!\s*bool\b)")


class Rule(NamedTuple):
    """One rule: a recording (alert is False) or an alert."""

    name: str
    expression: str
    alert: bool


class Server:
    """A Prometheus on a port of this machine."""

    def __init__(self, port: int) -> None:
        self._api = f"http://127.0.0.1:{port}/api/v1/"
        self._begun = time.time()

    def get(self, path: str, **params: str) -> Any:
        """Return the answer of the API."""
        with urllib.request.urlopen(f"{self._api}{path}?{urllib.parse.urlencode(params)}", timeout=30) as answer:
            found = json.loads(answer.read())
        assert found["status"] == "success", found
        return found["data"]

    def now(self, query: str) -> dict[tuple[tuple[str, str], ...], float]:
        """Figures by their labels."""
        data = self.get("query", query=query)["result"]
        return {tuple(sorted(each["metric"].items())): float(each["value"][1]) for each in data}

    def one(self, query: str) -> float:
        """The figure of a query that has one; NaN where it has none yet."""
        found = list(self.now(query).values())
        assert len(found) < 2, found
        return found[0] if found else math.nan

    def has_data(self, query: str) -> bool:
        """Whether a query gave a number at any time since this was made."""
        span = {"start": f"{self._begun:.3f}", "end": f"{time.time():.3f}", "step": str(_STEP)}
        series = self.get("query_range", query=query, **span)["result"]
        return any(not math.isnan(float(value)) for each in series for _, value in each["values"])

    def alerts(self) -> set[tuple[str, str, str]]:
        """Name, instance and state of each alert that is not quiet."""
        return {
            (each["labels"]["alertname"], each["labels"].get("instance", ""), each["state"])
            for each in self.get("alerts")["alerts"]
        }


def wait_for(until: Callable[[], bool], say: Callable[[], object], seconds: float = 900) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, say()
        time.sleep(0.5)


def shortened(text: str) -> str:
    """A query, or a file of rules, whose windows, offsets and waits are those of a test."""
    text = re.sub(r"\[[^\]]*\]", f"[{WINDOW}]", text)
    text = re.sub(r"\boffset \w+", "offset 5s", text)
    return re.sub(r"(?m)^(\s+for:) \w+$", r"\1 2s", text)


def panel_queries(folder: Path) -> dict[str, str]:
    """Every query of every panel, by dashboard, panel and letter, as Grafana requests it for all models."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        for panel in _panels(json.loads(path.read_bytes())["panels"]):
            for target in panel.get("targets", ()):
                query = target["expr"].replace("$__rate_interval", WINDOW).replace("$model", ".+")
                assert "$" not in query, f"{path.name}: {query}"
                found[f"{path.stem} / {panel['title']} / {target['refId']}"] = shortened(query)
    return found


def _panels(panels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*panels, *(inner for panel in panels for inner in _panels(panel.get("panels", [])))]


def rules_of(path: Path) -> list[Rule]:
    """The rules of a file."""
    groups = yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    return [Rule(rule.get("alert") or rule["record"], rule["expr"], "alert" in rule) for rule in rules]


def sides(expression: str) -> list[str]:
    """What an alert compares, as queries that have data whether it fires or not.

    A comparison gives 0 or 1 then, `unless` holds where both sides are there, and each side of an `or` is a query.
    """
    parts = _BRACED.split(expression)
    plain = [part if _BRACED.fullmatch(part) else _COMPARED.sub(r"\1 bool ", part) for part in parts]
    return _split(re.sub(r"\bunless\b", "and", "".join(plain)))


def _split(expression: str) -> list[str]:
    """The sides of each `or` that is in no parentheses."""
    depth, found = 0, [""]
    for part in re.split(r"([()]|\bor\b)", expression):
        depth += {"(": 1, ")": -1}.get(part, 0)
        if part == "or" and depth == 0:
            found.append("")
        else:
            found[-1] += part
    return [each.strip() for each in found]
