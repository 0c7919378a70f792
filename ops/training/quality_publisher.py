"""Publishes the quality windows of a trainer's checkpoints, and heartbeats in between."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from prectr.model.config import TrainerConfig
from prectr.model.distributed.process_group import TorchProcessGroup
from prectr.model.quality.record import RECORD_VERSION, QualityRecord, encode_record, run_name
from prectr.model.quality.windows import QualityWindow
from prectr.model.training.instrumentation import InstrumentedTrainer
from prectr.ops.training.evaluated_sinks import trainer_configs
from prectr.state.failpoints import Failpoint, failpoint
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics, describe_topic
from prectr.stream.kafka.io.quality_producer import QualityProducer
from prectr.stream.replay.run_checkpoint import list_checkpoints

HEARTBEAT_INTERVAL: Final = 10.0
"""Seconds after which a trainer without new quality windows republishes the latest."""
_BATCH_WINDOWS: Final = 2_048
"""Maximum number of quality windows of a model per batch."""
_FLUSH_TIMEOUT: Final = 5.0
_SLEEP: Final = 0.02
_log = logging.getLogger(__name__)


def make_trainers(
    config: TrainerConfig, models: Sequence[str], group: TorchProcessGroup | None
) -> dict[str, InstrumentedTrainer]:
    """Create a trainer for each model; raises UsageError if one is named twice or unknown."""
    return {name: InstrumentedTrainer(own, group) for name, own in trainer_configs(config, models).items()}


class QualityPublisher:
    """Publishes to model-quality; call `poll` regularly, and `flush` after the last checkpoint.

    A quality window is sent once it is in a checkpoint, and resent until the broker has acknowledged it; after a crash
    the next process resends those without acknowledgement. published_windows: number of acknowledged windows.
    """

    def __init__(
        self,
        connection: Connection,
        topics: Topics,
        trainers: Mapping[str, InstrumentedTrainer],
        run_dir: Path,
        config: Mapping[str, str],
    ) -> None:
        """Connect to the broker.

        Args:
            connection: to the broker.
            topics: names of the topics.
            trainers: by model, restored from a checkpoint.
            run_dir: folder of the checkpoints.
            config: all settings that the result depends on.

        Raises:
            PrectrError: there is no broker or no topic.
        """
        examples = describe_topic(connection, topics.examples).topic_id
        self._trainers = trainers
        self._runs = {model: run_name(model, topics.examples, examples, config) for model in trainers}
        self._run_dir = run_dir
        self._topic = QualityProducer(connection, topics)
        self._in_flight: dict[str, list[QualityWindow]] | None = None
        self._last_sent = float("-inf")
        self._reported_dropped = 0
        self.published_windows = 0

    @property
    def dropped_windows(self) -> int:
        """Number of quality windows dropped because too many were waiting for the broker."""
        return sum(trainer.quality_windows.dropped for trainer in self._trainers.values())

    def poll(self) -> None:
        """Process acknowledgements and send the next batch; never blocks."""
        if self._in_flight is not None:
            arrived = self._topic.take_result()
            if arrived is None:
                return
            if arrived:
                for model, windows in self._in_flight.items():
                    self._trainers[model].quality_windows.acknowledge(windows)
                    self.published_windows += len(windows)
            self._in_flight = None
        self._report_dropped()
        if not self._topic.ready:
            return
        batch = self._pending()
        if not batch and time.monotonic() - self._last_sent >= HEARTBEAT_INTERVAL:
            newest = {model: trainer.quality_windows.sealed.latest for model, trainer in self._trainers.items()}
            batch = {model: [window] for model, window in newest.items() if window is not None}
        if batch:
            self._send(batch)

    def flush(self) -> None:
        """Send all quality windows of the last checkpoint; wait up to 5 s for the acknowledgements."""
        until = time.monotonic() + _FLUSH_TIMEOUT
        while (self._pending() or self._in_flight) and time.monotonic() < until:
            self.poll()
            time.sleep(_SLEEP)

    def close(self) -> None:
        """Disconnect; the next process resends what is not acknowledged."""
        self._topic.close()

    def _pending(self) -> dict[str, list[QualityWindow]]:
        pending = {
            model: list(trainer.quality_windows.sealed.pending[:_BATCH_WINDOWS])
            for model, trainer in self._trainers.items()
        }
        return {model: windows for model, windows in pending.items() if windows}

    def _send(self, batch: dict[str, list[QualityWindow]]) -> None:
        checkpoint_time = list_checkpoints(self._run_dir / "checkpoints")[0].stat().st_mtime_ns // 1_000_000
        records = [
            QualityRecord(RECORD_VERSION, self._runs[model], 0, model, checkpoint_time, window)
            for model, windows in batch.items()
            for window in windows
        ]
        self._topic.send([(record.key, encode_record(record)) for record in records])
        failpoint(Failpoint.PUBLISHED)
        self._in_flight = batch
        self._last_sent = time.monotonic()

    def _report_dropped(self) -> None:
        if self.dropped_windows > self._reported_dropped:
            self._reported_dropped = self.dropped_windows
            _log.warning(
                "%d quality windows were dropped: too many were waiting for the broker",
                self._reported_dropped,
            )
