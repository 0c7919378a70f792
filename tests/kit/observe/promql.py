"""What a PromQL expression asks for, what the exporters have, and Prometheus' own tool to check both."""

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from prometheus_client.metrics_core import Metric

from prectr.ops.metrics.catalogue.progress_and_lag import BROKER_UNREACHABLE_SECONDS
from prectr.ops.metrics.stream import stream_metrics
from prectr.ops.metrics.train import TrainSnapshot, train_metrics
from prectr.ops.monitor.metrics import monitor_metrics
from tests.kit.observe.scrape import ALLOWED_LABELS
from tests.ops.metrics.test_live import AGGREGATE_STATUS, JOIN_STATUS, NOW
from tests.ops.metrics.test_replay import quality_of
from tests.ops.metrics.test_train import learning
from tests.ops.monitor.test_page import reading

RULES = Path(__file__).parents[3] / "ops" / "alerts" / "prectr.rules.yml"
_TARGET_LABELS = {"job", "instance"}
_KEYWORDS = {
    "and",
    "or",
    "unless",
    "bool",
    "offset",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "inf",
}
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_SELECTOR = re.compile(r"\b([a-zA-Z_][\w:]*)\b(?!\s*\()\s*(\{[^}]*\})?")


class Selector(NamedTuple):
    """A metric that an expression asks for. matchers: label, operator, value."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...]

    @property
    def job(self) -> str | None:
        return next((value for label, sign, value in self.matchers if (label, sign) == ("job", "=")), None)


class ParsedExpression(NamedTuple):
    """What an expression asks for. labels: those it groups or joins by."""

    selectors: list[Selector]
    labels: set[str]


Exported = dict[str, dict[str, dict[str, set[str]]]]
"""The values that were seen of each label of each metric, by job."""


def parse_expression(expr: str) -> ParsedExpression:
    labels = {label.strip() for names in _GROUPING.findall(expr) for label in names.split(",")} - {""}
    rest = re.sub(r"\[[^\]]*\]", " ", _GROUPING.sub(" ", expr))
    rest = re.sub(r"\boffset\s+\w+", " ", rest)
    selectors = [
        Selector(name, tuple(_MATCHER.findall(matchers)))
        for name, matchers in _SELECTOR.findall(rest)
        if name not in _KEYWORDS
    ]
    return ParsedExpression(selectors, labels)


def unknown_parts(expr: str) -> Iterator[str]:
    """What an expression asks for that no exporter has, and no recording rule makes."""
    parsed = parse_expression(expr)
    known_labels: set[str] = set()
    for selector in parsed.selectors:
        labels = _labels_of(selector)
        if labels is None:
            yield f"no {selector.job or 'exporter'} has {selector.metric}"
            continue
        known_labels |= labels.keys()
        for label, sign, value in selector.matchers:
            if label not in labels:
                yield f"{selector.metric} has no label {label}"
            elif sign == "=" and labels[label] and value not in labels[label]:
                yield f"{label} of {selector.metric} is never {value}"
    yield from (f"nothing in {expr} has the label {label}" for label in sorted(parsed.labels - known_labels))


def _labels_of(selector: Selector) -> dict[str, set[str]] | None:
    """Values by label; an empty set where any may come. None: there is no such metric."""
    if selector.metric == "up":
        return {"job": set(exported()), "instance": set()}
    if selector.metric == "ALERTS":
        return {label: set() for label in ("alertname", "alertstate", "severity")}
    if selector.metric in recording_rules():
        return {label: set() for label in labels_of_rule(selector.metric)}
    jobs = exported()
    found = [jobs[job][selector.metric] for job in jobs if selector.job in (None, job) and selector.metric in jobs[job]]
    if not found:
        return None
    return {label: set().union(*(each.get(label, set()) for each in found)) for label in set().union(*found)} | {
        "job": set(jobs),
        "instance": set(),
        # How many partitions there are, and which models, is nobody's to know.
        "partition": set(),
        "model": set(),
    }


def labels_of_rule(record: str) -> set[str]:
    """The labels of a recording rule: by convention its name begins with them, joined by underscores."""
    prefix = f"_{record.partition(':')[0]}_"
    return {label for label in ALLOWED_LABELS | _TARGET_LABELS if f"_{label}_" in prefix}


@cache
def exported() -> Exported:
    """What a stream worker, a trainer and a monitor serve, from samples of what they know."""
    # A trainer that has all figures there may be.
    trainer = TrainSnapshot(
        pages_trained={"lr": 64},
        quality={"lr": quality_of(0).segments()},
        late_records=0,
        checkpoint_time=NOW,
        status=learning(),
    )
    by_job = {
        "stream": stream_metrics([JOIN_STATUS, AGGREGATE_STATUS], clock=lambda: NOW),
        "train": train_metrics(trainer, clock=lambda: NOW),
        "monitor": monitor_metrics(reading(version=1), clock=lambda: NOW),
    }
    return {
        job: _label_values(chain([BROKER_UNREACHABLE_SECONDS.value(0.0)], families)) for job, families in by_job.items()
    }


def _label_values(families: Iterator[Metric]) -> dict[str, dict[str, set[str]]]:
    values_by_metric: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for family in families:
        for sample in family.samples:
            values = values_by_metric[sample.name]
            for label, value in sample.labels.items():
                values[label].add(value)
    return values_by_metric


@cache
def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def recording_rules() -> dict[str, str]:
    """The expressions of the recording rules, by name."""
    return {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


def exporter_metrics_of(expr: str) -> set[str]:
    """The exporters' metrics that an expression is made of, those of its recording rules in their place."""
    found: set[str] = set()
    for selector in parse_expression(expr).selectors:
        rule = recording_rules().get(selector.metric)
        found |= {selector.metric} if rule is None else exporter_metrics_of(rule)
    return found
