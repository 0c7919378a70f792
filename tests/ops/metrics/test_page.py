"""The catalogue of metrics, and docs/metrics.md generated from it, against what the exporters export."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path

import yaml
from prometheus_client.metrics_core import Metric

from prectr.ops.metrics.catalogue import SECTIONS
from prectr.ops.metrics.catalogue.progress_and_lag import BROKER_UNREACHABLE_SECONDS
from prectr.ops.metrics.ingest import ingest_metrics
from prectr.ops.metrics.reference import page
from prectr.ops.metrics.replay import replay_metrics
from prectr.ops.metrics.stream import stream_metrics
from prectr.ops.metrics.train import TrainSnapshot, train_metrics
from prectr.ops.monitor.metrics import monitor_metrics
from tests.kit.observe.promtool import promtool
from tests.kit.observe.scrape import ALLOWED_LABELS
from tests.ops.metrics.test_ingest import INGEST_STATUS
from tests.ops.metrics.test_live import AGGREGATE_STATUS, JOIN_STATUS, NOW
from tests.ops.metrics.test_replay import quality_of, snapshot_of
from tests.ops.metrics.test_train import learning
from tests.ops.monitor.test_page import reading

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"
JOBS = ("stream", "train", "monitor", "replay", "ingest")


@dataclass
class Exported:
    """What the exporters have of a metric."""

    type: str = ""
    labels: set[str] = field(default_factory=set)
    jobs: set[str] = field(default_factory=set)
    meanings: set[str] = field(default_factory=set)


@cache
def families() -> dict[str, Exported]:
    """What the exporters have, from samples of everything that they can export."""
    found: dict[str, Exported] = defaultdict(Exported)
    for job, metrics in zip(JOBS, exporters(), strict=True):
        for metric in metrics:
            row = found[f"{metric.name}_total" if metric.type == "counter" else metric.name]
            row.type = metric.type
            row.meanings.add(metric.documentation)
            row.jobs.add(job)
            row.labels |= {label for sample in metric.samples for label in sample.labels if label != "le"}
    return found


def exporters() -> Iterator[Iterator[Metric]]:
    trainer = TrainSnapshot(
        pages_trained={"lr": 64},
        quality={"lr": quality_of(0).segments()},
        late_records=0,
        checkpoint_time=NOW,
        status=learning(),
    )
    broker = [BROKER_UNREACHABLE_SECONDS.value(0.0)]
    yield chain(broker, stream_metrics([JOIN_STATUS, AGGREGATE_STATUS], clock=lambda: NOW))
    yield chain(broker, train_metrics(trainer, clock=lambda: NOW))
    yield chain(broker, monitor_metrics(reading(version=1), clock=lambda: NOW))
    yield replay_metrics(snapshot_of({"lr": quality_of(0)}))
    yield chain(broker, ingest_metrics([INGEST_STATUS]))


DEFINITIONS = {metric.name: metric for _, metrics, _ in SECTIONS for metric in metrics}


def test_the_catalogue_has_every_exported_metric_as_it_is_exported_and_no_other() -> None:
    assert len(DEFINITIONS) == sum(len(metrics) for _, metrics, _ in SECTIONS)
    assert {
        name: Exported(metric.type, set(metric.labels), set(metric.jobs), {metric.meaning})
        for name, metric in DEFINITIONS.items()
    } == dict(families())


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m prectr.ops.metrics.reference"


def test_labels_are_those_agreed_on_and_the_page_names_them_all() -> None:
    used = set().union(*(row.labels for row in families().values()))
    assert used == ALLOWED_LABELS
    assert all(f"`{label}`" in page() for label in ALLOWED_LABELS)


def test_names_end_in_their_unit_and_help_texts_are_sentences() -> None:
    for name, metric in DEFINITIONS.items():
        assert name.endswith("_total") == (metric.type == "counter"), name
        assert metric.meaning[0].isupper(), name
        assert metric.meaning.endswith("."), name
        if re.search("_seconds(_total)?$", name):
            assert "seconds" in metric.meaning, name


def test_every_example_asks_for_its_metric_and_prometheus_reads_it(tmp_path: Path) -> None:
    examples = {name: metric.example for name, metric in DEFINITIONS.items()}
    for name, example in examples.items():
        asked = {re.sub("_(bucket|count|sum)$", "", each) for each in re.findall(r"prectr_\w+", example)}
        assert name in asked
        assert asked <= families().keys()
        for job in re.findall(r'job="(\w+)"', example):
            assert job in families()[name].jobs
    rules = [{"record": f"example:{name}", "expr": example} for name, example in examples.items()]
    path = tmp_path / "examples.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "examples", "rules": rules}]}))
    done = promtool("check", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(examples)} rules found" in done.stdout


def test_metrics_exported_by_two_jobs_are_selected_by_job() -> None:
    for name, metric in DEFINITIONS.items():
        live_jobs = set(metric.jobs) - {"replay"}
        if len(live_jobs) > 1 and name != "prectr_consumer_lag_records":
            assert f'{name}{{job="' in metric.example, "a sum over both counts twice"
