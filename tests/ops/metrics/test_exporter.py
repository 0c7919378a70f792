"""The exporter over HTTP: formats that Prometheus asks for, readiness, allowed host names."""

import gzip
from collections.abc import Iterator

import msgspec
import pytest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from prectr.ops.cli.main import load_command
from prectr.ops.cli.options import MetricsOptions
from prectr.ops.metrics.exporter import Exporter
from prectr.ops.metrics.stream import unready_reason as stream_unready_reason
from prectr.ops.metrics.train import TrainSnapshot
from prectr.ops.metrics.train import unready_reason as train_unready_reason
from prectr.state.errors import UsageError
from prectr.stream.kafka.tasks.task_status import TaskState
from tests.kit.observe.raw_http import ask
from tests.ops.metrics.test_live import AGGREGATE_STATUS, JOIN_STATUS

PROMETHEUS_ACCEPT = (
    "application/openmetrics-text;version=1.0.0;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
)
"""What Prometheus 2.53 sends."""


def two_gauges(value: float) -> Iterator[Metric]:
    yield GaugeMetricFamily("prectr_first", "The first.", value)
    yield GaugeMetricFamily("prectr_second", "The second.", 2 * value)


@pytest.fixture
def exporter() -> Iterator[Exporter[float]]:
    with Exporter(two_gauges, 0, unready_reason=lambda value: "too small" if value < 10 else "") as exporter:
        yield exporter


def test_prometheus_gets_openmetrics_compressed(exporter: Exporter[float]) -> None:
    exporter.update(3)
    answer = ask(exporter.port, "/metrics", Accept=PROMETHEUS_ACCEPT, Accept_Encoding="gzip")
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    families = text_string_to_metric_families(gzip.decompress(answer.body).decode())
    assert {family.name: family.samples[0].value for family in families} == {"prectr_first": 3, "prectr_second": 6}


@pytest.mark.parametrize("accept", ["*/*", "application/openmetrics-text;version=x", "text/plain;version=1.0.0.b"])
def test_any_other_client_gets_text_as_it_is(exporter: Exporter[float], accept: str) -> None:
    exporter.update(3)
    answer = ask(exporter.port, "/metrics", Accept=accept)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert b"\nprectr_first 3.0\n" in answer.body


def test_metrics_are_also_at_the_root(exporter: Exporter[float]) -> None:
    exporter.update(3)
    assert ask(exporter.port, "/").body == ask(exporter.port, "/metrics").body
    assert ask(exporter.port, "/favicon.ico").status == 404


def test_a_process_is_healthy_at_once_and_ready_when_its_snapshot_says_so(exporter: Exporter[float]) -> None:
    seen = []
    for value in (None, 9, 10):
        if value is not None:
            exporter.update(value)
        assert ask(exporter.port, "/healthz").status == 200
        seen.append(ask(exporter.port, "/readyz")[::2])
    assert seen == [(503, b"starting\n"), (503, b"too small\n"), (200, b"ready\n")]


def test_a_stream_worker_is_not_ready_while_a_task_restores() -> None:
    restoring = msgspec.structs.replace(JOIN_STATUS, state=TaskState.RESTORING, restore_remaining=1_200)
    assert stream_unready_reason([restoring, AGGREGATE_STATUS]) == "restoring 1 of 2 tasks: 1,200 records left"
    # A worker without tasks is a spare, which is as it should be.
    assert stream_unready_reason([]) == ""
    assert stream_unready_reason([JOIN_STATUS, AGGREGATE_STATUS]) == ""


def test_a_trainer_that_stopped_at_a_loss_is_not_ready() -> None:
    snapshot = TrainSnapshot(pages_trained={}, quality={}, late_records=0, checkpoint_time=None)
    assert train_unready_reason(snapshot) == ""
    assert "loss is not finite" in train_unready_reason(msgspec.structs.replace(snapshot, loss_not_finite=True))


def test_allowed_hosts_come_from_the_flag_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    options = MetricsOptions(metrics_port=0, allowed_host=["train"])
    with options.exporter(two_gauges) as exporter:
        assert exporter is not None
        assert [ask(exporter.port, host=host).status for host in ("train:9400", "other:9400")] == [200, 421]
    with (
        pytest.raises(UsageError, match="--allowed-host 'train:9400' is not a host name"),
        MetricsOptions(metrics_port=0, allowed_host=["train:9400"]).exporter(two_gauges),
    ):
        pass
    monkeypatch.setenv("PRECTR_ALLOWED_HOSTS", "a b.example")
    for name in ("stream", "train", "monitor", "ingest"):
        words = ["--bootstrap=b:1", "--state-dir=s", "--run-dir=r", "--data-dir=d"]
        known = {option.name for option in load_command(name).params}
        flags = [word for word in words if word[2:].partition("=")[0].replace("-", "_") in known]
        arguments = ["topic=mapping.toml"] if name == "ingest" else []
        assert load_command(name).make_context(name, [*arguments, *flags]).params["allowed_host"] == ["a", "b.example"]
        flags += ["--allowed-host", "c", "--allowed-host", "d"]
        assert load_command(name).make_context(name, [*arguments, *flags]).params["allowed_host"] == ["c", "d"]
