"""The replay's exporter, scraped over HTTP and read by Prometheus' own parser."""

import re
import socket

import numpy as np
import pytest

from prectr.model.quality.quality import Quality
from prectr.ops.metrics.replay import PartitionProgress, ReplayMetrics, ReplaySnapshot, serve_metrics
from prectr.state.errors import PrectrError, UsageError
from prectr.stream.join.outcomes import ClickOutcomes, Outcomes, PageOutcomes
from tests.kit.observe.scrape import ALLOWED_LABELS, Samples, scrape_samples


def quality_of(seed: int, pages: int = 64) -> Quality:
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 1, pages * 10)
    out = Quality()
    out.add_batch(
        logits,
        (rng.random(len(logits)) < 1 / (1 + np.exp(-logits))).astype(np.uint8),
        np.arange(0, pages * 10 + 1, 10),
        # Nobody is active yet: that segment has no figures.
        user_activity=rng.integers(0, 9, pages),
        levels=np.full(len(logits), 4, np.uint8),
        positions=np.tile(np.arange(1, 11), pages),
        closes_at=np.full(pages, 1_700_000_000_000),
    )
    return out


def snapshot_of(quality: dict[str, Quality]) -> ReplaySnapshot:
    return ReplaySnapshot(
        outcomes=Outcomes(PageOutcomes(100, 79, 15, 1, 3, 2), ClickOutcomes(50, 28, 5, 4, 3, 2, 5, 2, 1), 7),
        dead_letters={"json": 7, "future_timestamp": 3},
        late_records=0,
        pages_trained=dict.fromkeys(quality, 64),
        quality={model: one.segments() for model, one in quality.items()},
        partitions=(
            PartitionProgress(stage="join", partition=0, watermark_lag_seconds=5.0),
            PartitionProgress(stage="join", partition=1, watermark_lag_seconds=7.5),
        ),
        level_counts=(10, 20, 30, 40, 1, 2, 3, 8),
        low_watermark_ms=1_700_000_000_000,
    )


def scrape(metrics: ReplayMetrics) -> Samples:
    return scrape_samples(metrics.port)


def test_a_scrape_shows_the_counts_of_the_snapshot() -> None:
    with serve_metrics(0) as metrics:
        metrics.update(snapshot_of({}))
        seen = scrape(metrics)

    def at(name: str, **labels: str) -> float:
        return seen[name, frozenset(labels.items())]

    events = {"page": 100, "click": 50, "unreadable": 7}
    pages = {"emitted": 79, "empty": 1, "duplicate": 3, "dead_letter": 2}
    clicks = {
        "joined": 28,
        "duplicate": 5,
        "late": 4,
        "orphan": 3,
        "foreign": 2,
        "other_action": 2,
        "dead_letter": 1,
    }
    for name, label, ends in (("events", "type", events), ("pages", "outcome", pages), ("clicks", "outcome", clicks)):
        found = {labels: n for (metric, labels), n in seen.items() if metric == f"prectr_{name}_total"}
        assert found == {frozenset({"stage": "join", label: end}.items()): n for end, n in ends.items()}
    assert at("prectr_pending_clicks", stage="join") == 5
    assert at("prectr_dead_letters_total", stage="join", reason="json") == 7
    assert at("prectr_dead_letters_total", stage="join", reason="future_timestamp") == 3
    for level, (impressions, clicked) in enumerate(((10, 1), (20, 2), (30, 3), (40, 8)), 1):
        assert at("prectr_aggregated_impressions_total", stage="aggregate", relevance_level=str(level)) == impressions
        assert at("prectr_aggregated_clicks_total", stage="aggregate", relevance_level=str(level)) == clicked
    assert at("prectr_late_records_total") == 0
    assert at("prectr_pending_pages", stage="join") == 15
    assert at("prectr_watermark_lag_seconds", stage="join", partition="1") == 7.5
    assert at("prectr_low_watermark_timestamp_seconds") == 1_700_000_000


def test_a_scrape_shows_each_models_metrics_by_segment_and_omits_undefined_ones() -> None:
    quality = {"lr": quality_of(0), "wide-deep": quality_of(1)}
    with serve_metrics(0) as metrics:
        metrics.update(snapshot_of(quality))
        seen = scrape(metrics)
    for model, one in quality.items():
        for segment, sketch in one.segments().items():
            labels = frozenset({"model": model, "segment": segment}.items())
            windowed = labels | {("window", "run")}
            for name, figure in (
                ("prectr_auc", sketch.auc),
                ("prectr_gauc", sketch.gauc),
                ("prectr_log_loss", sketch.log_loss),
                ("prectr_normalized_entropy", sketch.normalized_entropy),
                ("prectr_calibration_ratio", sketch.calibration),
            ):
                assert seen.get((name, windowed)) == figure
                assert (figure is None) == (segment == "active")
            assert seen["prectr_scored_impressions_total", labels] == sketch.impressions
            if segment != "active":
                # The figures follow from the exported sums, as PromQL would divide them.
                loss, weight = seen["prectr_log_loss_nats_total", labels], seen["prectr_gauc_weight_total", labels]
                assert loss / seen["prectr_scored_impressions_total", labels] == sketch.log_loss
                assert seen["prectr_gauc_weighted_total", labels] / weight == sketch.gauc
                clicks = seen["prectr_scored_clicks_total", labels]
                assert seen["prectr_predicted_clicks_total", labels] / clicks == sketch.calibration


def test_names_and_labels_keep_the_conventions() -> None:
    with serve_metrics(0) as metrics:
        metrics.update(snapshot_of({"lr": quality_of(0)}))
        seen = scrape(metrics)
    assert len(seen) > 50
    for name, labels in seen:
        assert re.fullmatch(r"prectr_[a-z_]+", name)
        assert {label for label, _ in labels} <= ALLOWED_LABELS


def test_a_scrape_sees_the_latest_snapshot_and_nothing_before_the_first() -> None:
    with serve_metrics(0) as metrics:
        assert scrape(metrics) == {}
        for emitted in (1, 2):
            metrics.update(
                ReplaySnapshot(
                    outcomes=Outcomes(PageOutcomes(emitted, emitted)),
                    dead_letters={},
                    late_records=0,
                    pages_trained={},
                    quality={},
                )
            )
            assert (
                scrape(metrics)["prectr_pages_total", frozenset({("stage", "join"), ("outcome", "emitted")})] == emitted
            )


def test_a_port_in_use_is_a_clear_error() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(PrectrError, match=rf"cannot serve metrics on 127\.0\.0\.1:{port}.*in use.*--metrics-port"):
            serve_metrics(port)


@pytest.mark.parametrize("port", [-1, 70_000])
def test_a_port_out_of_range_is_wrong_use(port: int) -> None:
    with pytest.raises(UsageError, match=f"port {port} is out of range"):
        serve_metrics(port)


def test_an_address_that_is_not_ours_is_a_clear_error() -> None:
    with pytest.raises(PrectrError, match=r"cannot serve metrics on 192\.0\.2\.1:0"):
        serve_metrics(0, address="192.0.2.1")


@pytest.mark.parametrize("address", ["no.such.host.invalid", "", "a..b", "x" * 300])
def test_an_address_that_is_none_is_a_clear_error(address: str) -> None:
    with pytest.raises(PrectrError, match=r"cannot serve metrics on .*address of this machine"):
        serve_metrics(0, address=address)


def test_a_closed_exporter_frees_its_port() -> None:
    first = serve_metrics(0)
    port = first.port
    first.close()
    serve_metrics(port).close()
