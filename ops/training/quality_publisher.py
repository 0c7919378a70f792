"""Publishes what a trainer's checkpoints hold of its quality, and now and then that it is still there."""

import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from prectr.model.config import TrainerConfig
from prectr.model.distributed.process_group import Ranks
from prectr.model.quality.record import VERSION, QualityRecord, encode_record, run_name
from prectr.model.quality.windows import Stretch
from prectr.model.training.instrumentation import WatchedTrainer
from prectr.state.errors import UsageError
from prectr.state.failpoints import at_point
from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics, layout
from prectr.stream.kafka.io.quality_producer import QualityTopic
from prectr.stream.replay.run_checkpoint import cuts

ALIVE_EVERY: Final = 10.0
"""Seconds after which a trainer that has nothing new repeats its last word."""
_PARCEL: Final = 2_048
"""Stretches of a model that are sent at a time."""
_END_SECONDS: Final = 5.0
_NAP: Final = 0.02
_log = logging.getLogger(__name__)


def make_watched(config: TrainerConfig, models: Sequence[str], ranks: Ranks | None) -> dict[str, WatchedTrainer]:
    """A trainer for each model, in this order; raises UsageError where one is named twice, or is not known."""
    if len(set(models)) < len(models):
        raise UsageError(f"--model {','.join(models)}: a model is named twice")
    return {name: WatchedTrainer(dataclasses.replace(config, model=name), ranks) for name in models}


class QualityFeed:
    """Call `keep_up` now and then, and `finish` behind the last checkpoint.

    Every stretch is sent once it is in a checkpoint, and again until it is known to have arrived; what it is not known
    of when the process dies is sent by the next. published: stretches that have arrived. dropped: those that never did.
    """

    def __init__(
        self,
        connection: Connection,
        topics: Topics,
        trainers: Mapping[str, WatchedTrainer],
        run_dir: Path,
        config: Mapping[str, str],
    ) -> None:
        """trainers: by model, as a checkpoint has left them. config: every setting that decides the result.

        Raises:
            PrectrError: no broker, or no topic.
        """
        examples = layout(connection, topics.examples).identity
        self._trainers = trainers
        self._runs = {model: run_name(model, topics.examples, examples, config) for model in trainers}
        self._run_dir = run_dir
        self._topic = QualityTopic(connection, topics)
        self._on_the_way: dict[str, list[Stretch]] | None = None
        self._spoke = float("-inf")
        self._lost = 0
        self.published = 0

    @property
    def dropped(self) -> int:
        """Stretches that were never published, since too many waited."""
        return sum(trainer.stretches.dropped for trainer in self._trainers.values())

    def keep_up(self) -> None:
        """Take note of what has arrived, and send what is next; never waits."""
        if self._on_the_way is not None:
            arrived = self._topic.arrived()
            if arrived is None:
                return
            if arrived:
                for model, stretches in self._on_the_way.items():
                    self._trainers[model].stretches.published(stretches)
                    self.published += len(stretches)
            self._on_the_way = None
        self._tell_lost()
        if not self._topic.ready:
            return
        parcel = self._waiting()
        if not parcel and time.monotonic() - self._spoke >= ALIVE_EVERY:
            newest = {model: trainer.stretches.settled.newest for model, trainer in self._trainers.items()}
            parcel = {model: [stretch] for model, stretch in newest.items() if stretch is not None}
        if parcel:
            self._send(parcel)

    def finish(self) -> None:
        """Send all that the last checkpoint holds, and wait some seconds for it to arrive."""
        until = time.monotonic() + _END_SECONDS
        while (self._waiting() or self._on_the_way) and time.monotonic() < until:
            self.keep_up()
            time.sleep(_NAP)

    def close(self) -> None:
        """Leave the broker; what has not arrived is sent by the next process."""
        self._topic.close()

    def _waiting(self) -> dict[str, list[Stretch]]:
        waiting = {
            model: list(trainer.stretches.settled.waiting[:_PARCEL]) for model, trainer in self._trainers.items()
        }
        return {model: stretches for model, stretches in waiting.items() if stretches}

    def _send(self, parcel: dict[str, list[Stretch]]) -> None:
        newest = cuts(self._run_dir / "checkpoints")[0].stat().st_mtime_ns // 1_000_000
        records = [
            QualityRecord(VERSION, self._runs[model], 0, model, newest, stretch)
            for model, stretches in parcel.items()
            for stretch in stretches
        ]
        self._topic.send([(record.key, encode_record(record)) for record in records])
        at_point("published")
        self._on_the_way = parcel
        self._spoke = time.monotonic()

    def _tell_lost(self) -> None:
        if self.dropped > self._lost:
            self._lost = self.dropped
            _log.warning("%d stretches of quality were dropped unpublished: too many waited for the broker", self._lost)
