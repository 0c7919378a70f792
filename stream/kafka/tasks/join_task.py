"""Stage `sessions` over one partition of the events."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from kafka.consumer.fetcher import ConsumerRecord

from prectr.state.errors import StateError
from prectr.stream.events.contract import Impression
from prectr.stream.events.decode import decode_lines
from prectr.stream.events.partition import partitions_of
from prectr.stream.join.event_clock import BEFORE_TIME, END_OF_TIME
from prectr.stream.join.operator import CHUNK_LINES, MicroBatch, Refused, Sessions
from prectr.stream.join.outcomes import Outcomes
from prectr.stream.kafka.client.end_offsets import LogEnds, Look
from prectr.stream.kafka.tasks.task import FRAME_EVERY, Place, Task
from prectr.stream.kafka.tasks.task_metrics import StageCounts
from prectr.stream.kafka.transactions.producer import CommittedOffsets, Outbox
from prectr.stream.ordering.frames import END_OF_LOG, encode_frames
from prectr.stream.ordering.watermark import Silence
from prectr.stream.records import Activity, encode_record

IDLE_AFTER: Final = 5.0
"""Seconds without input after which a task may say that it is silent."""


class SessionsTask(Task):
    """Stage `sessions` over one partition of the events."""

    stage = "sessions"

    def __init__(
        self,
        place: Place,
        log_ends: LogEnds,
        offsets: CommittedOffsets,
        *,
        label: Callable[[str, Impression], None],
        idle_timeout: float,
    ) -> None:
        """idle_timeout: seconds of silence after which nobody waits for what the task holds, while others go on."""
        self.input_topic = place.topics.events
        self._label = label
        self._idle_timeout = idle_timeout
        self._silence: Silence | None = None
        self._others_then: list[int] | None = None
        self._untold = True
        self._buried: Counter[str] = Counter()
        super().__init__(place, log_ends, offsets)

    @property
    def ended(self) -> int:
        """To which offset the task was asked to read and has said that it has; END_OF_LOG once flushed, or -1."""
        return self.said.ends[0] if self.said.ends else -1

    @property
    def _output_topics(self) -> Sequence[str]:
        return [self.place.topics.activity, self.place.topics.dead_letters]

    @property
    def _outputs(self) -> int:
        return self.place.config.partitions

    @property
    def _watermark(self) -> int:
        return self._sessions.watermark

    def _open(self) -> int:
        self._sessions = Sessions(self.place.config, self.store, self._label)
        return self._sessions.position

    def _counted(self) -> StageCounts:
        return StageCounts(
            # The stage goes on counting in its own.
            outcomes=self._sessions.outcomes + Outcomes(),
            dead_letters=dict(self._buried),
            heard=self._sessions.watermark,
        )

    def _changes(self) -> dict[bytes, bytes | None]:
        return self._sessions.take_changes()

    def _process(self, records: Sequence[ConsumerRecord]) -> tuple[list[Activity], list[Refused]]:
        closed: list[Activity] = []
        refused: list[Refused] = []
        for start in range(0, len(records), CHUNK_LINES):
            chunk = records[start : start + CHUNK_LINES]
            lines = [record.value or b"" for record in chunk]
            batch = MicroBatch(decode_lines(lines), lines, [record.offset for record in chunk])
            closed_here, refused_here = self._sessions.process(batch, chunk[-1].offset + 1)
            closed += closed_here
            refused += refused_here
        return closed, refused

    def _repeat(self, records: Sequence[ConsumerRecord], offset: int) -> None:
        self._process(records)

    def _caught_up(self) -> None:
        if self.ended == END_OF_LOG:
            # A crash between the commit of the flush and the write of its state leaves pages open here.
            self._sessions.flush()
            self.store.write(self._changes())
        emitted = self._sessions.outcomes.impressions.emitted
        if emitted != self.said.emitted:
            raise StateError(
                f"{self.store.path}: the log up to offset {self._committed} of {self.partition.topic} gives {emitted} "
                f"pages, {self.said.emitted} were committed: the state or the log is not what it was. Delete the "
                "folder to rebuild it from the log"
            )

    def _take(self, records: Sequence[ConsumerRecord], offset: int) -> Outbox:
        if self.ended == END_OF_LOG:
            raise StateError(
                f"{self.partition.topic} partition {self.partition.partition}: offset {records[0].offset} came after "
                "--flush had closed every page: nothing can follow. Load further events under another --topic-prefix"
            )
        activities, refused = self._process(records)
        outbox = Outbox()
        self._bury(outbox, refused, {record.offset: record for record in records})
        spoke_again, self._silence, self._others_then = self._silence is not None, None, None
        self._frame(outbox, activities, to_all=spoke_again or time.monotonic() - self._framed >= FRAME_EVERY)
        return outbox

    def keep_up(self, group: Any, look: Look | None, position: int) -> None:
        """Without input: tell the last watermark, and that there is nothing to say.

        look: how far the logs of all partitions reach, where that was asked just now. position: offset of the next
        record, past what a transaction of others has left.
        """
        self.write_if_due()
        if self.position < self._committed:
            return
        silence = self._silence if look is None else self._judge_silence(look, position)
        if silence == self._silence and not self._untold:
            return
        if time.monotonic() - self._framed >= FRAME_EVERY:
            self._silence = silence
            self._transact(lambda: self._tell_all([]), self._committed, group)

    @property
    def silent_for(self) -> float:
        """Seconds since the last input."""
        return time.monotonic() - self._heard

    def end(self, group: Any, target: int, ends: Sequence[int]) -> None:
        """The log has been read to the offset `target`, its end: say so. END_OF_LOG: and close every page.

        ends: of all partitions; everybody reads up to there.
        """
        if self.ended >= target or self.position < self._committed:
            return
        flush = target == END_OF_LOG
        self.said.ends = [target]
        self._silence = None if flush else Silence(list(ends), END_OF_TIME)
        self._transact(lambda: self._tell_all(self._sessions.flush() if flush else []), self._committed, group)

    def _judge_silence(self, look: Look, position: int) -> Silence | None:
        """Whether the others may go on without this task, and how far.

        A pause of the whole log is no reason to go on: nobody has anything to say, and what is said first after it
        must find its place. So at first the others only go on while their logs grow, and only up to the next page
        that is open here; after the idle timeout they wait for nothing.
        """
        if self.silent_for < IDLE_AFTER:
            return None
        number = self.place.partition
        if position < look.ends[number]:
            self._heard, self._others_then = time.monotonic(), None
            return None
        if self._others_then is None:
            self._others_then = look.ends
        grown = any(
            seen > then
            for other, (seen, then) in enumerate(zip(look.seen, self._others_then, strict=True))
            if other != number
        )
        asleep = self.silent_for >= self._idle_timeout
        if self._sessions.watermark == BEFORE_TIME or (grown and asleep):
            return Silence(look.seen, END_OF_TIME)
        if grown or asleep:
            return Silence(look.seen, self._sessions.next_close - 1)
        return None

    def _tell_all(self, activities: Sequence[Activity]) -> Outbox:
        outbox = Outbox()
        self._frame(outbox, activities, to_all=True)
        return outbox

    def _frame(self, outbox: Outbox, activities: Sequence[Activity], *, to_all: bool) -> None:
        """Frames to every partition that has records for it; to all of them once a second, for the watermark."""
        partitions = self.place.config.partitions
        records: list[list[bytes]] = [[] for _ in range(partitions)]
        self.said.emitted += len(activities)
        for partition, activity in zip(
            partitions_of([activity.query for activity in activities], partitions), activities, strict=True
        ):
            records[partition].append(encode_record(activity))
        self._untold = not to_all
        if to_all:
            self._framed = time.monotonic()
        source, ended = self.place.partition, self.ended
        for partition, encoded in enumerate(records):
            if not encoded and not to_all:
                continue
            parts = encode_frames(
                source,
                self.said.sequences[partition],
                encoded,
                END_OF_TIME if ended == END_OF_LOG else self._sessions.watermark,
                read=self._sessions.position,
                silence=self._silence,
                ends={source: ended} if ended >= 0 else {},
                outcomes={source: self._sessions.outcomes},
            )
            self.said.sequences[partition] += len(parts)
            for part in parts:
                outbox.add(self.place.topics.activity, partition, part)

    def _bury(self, outbox: Outbox, refused: Sequence[Refused], records: dict[int, ConsumerRecord]) -> None:
        self._buried.update(letter.reason for letter in refused)
        for letter in refused:
            record = records.get(letter.place)
            headers = [
                ("reason", letter.reason.encode()),
                ("detail", letter.detail.encode()),
                ("topic", self.partition.topic.encode()),
                ("partition", str(self.partition.partition).encode()),
                ("offset", str(letter.place).encode()),
            ]
            if record is not None:
                key, theirs = record.key, [(name, value or b"") for name, value in record.headers]
            else:
                # Given up long after it came; the log has its headers, at the offset named here.
                user_id = decode_lines([letter.value])[0].user_id
                key, theirs = None if user_id is None else user_id.encode(), []
            outbox.add(self.place.topics.dead_letters, None, letter.value, key, headers + theirs)
