"""Publishes what a trainer's checkpoints hold of its quality, and now and then that it is still there."""

import dataclasses
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
from prectr.state.errors import UsageError
from prectr.state.failpoints import Failpoint, failpoint
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics, describe_topic
from prectr.stream.kafka.io.quality_producer import QualityProducer
from prectr.stream.replay.run_checkpoint import list_checkpoints

HEARTBEAT_INTERVAL: Final = 10.0
"""Seconds after which a trainer that has nothing new repeats its last word."""
_BATCH_WINDOWS: Final = 2_048
"""Stretches of a model that are sent at a time."""
_FLUSH_TIMEOUT: Final = 5.0
_SLEEP: Final = 0.02
_log = logging.getLogger(__name__)


def make_trainers(
    config: TrainerConfig, models: Sequence[str], ranks: TorchProcessGroup | None
) -> dict[str, InstrumentedTrainer]:
    """A trainer for each model, in this order; raises UsageError where one is named twice, or is not known."""
    if len(set(models)) < len(models):
        raise UsageError(f"--model {','.join(models)}: a model is named twice")
    return {name: InstrumentedTrainer(dataclasses.replace(config, model=name), ranks) for name in models}


class QualityPublisher:
    """Call `keep_up` now and then, and `finish` behind the last checkpoint.

    Every stretch is sent once it is in a checkpoint, and again until it is known to have arrived; what it is not known
    of when the process dies is sent by the next. published: stretches that have arrived. dropped: those that never did.
    """

    def __init__(
        self,
        connection: Connection,
        topics: Topics,
        trainers: Mapping[str, InstrumentedTrainer],
        run_dir: Path,
        config: Mapping[str, str],
    ) -> None:
        """trainers: by model, as a checkpoint has left them. config: every setting that decides the result.

        Raises:
            PrectrError: no broker, or no topic.
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
        """Stretches that were never published, since too many waited."""
        return sum(trainer.quality_windows.dropped for trainer in self._trainers.values())

    def poll(self) -> None:
        """Take note of what has arrived, and send what is next; never waits."""
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
        """Send all that the last checkpoint holds, and wait some seconds for it to arrive."""
        until = time.monotonic() + _FLUSH_TIMEOUT
        while (self._pending() or self._in_flight) and time.monotonic() < until:
            self.poll()
            time.sleep(_SLEEP)

    def close(self) -> None:
        """Leave the broker; what has not arrived is sent by the next process."""
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
                "%d stretches of quality were dropped unpublished: too many waited for the broker",
                self._reported_dropped,
            )
