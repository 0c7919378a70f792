"""Partitions and transactions of the fake broker: what a broker keeps, without clients."""

from dataclasses import dataclass, field

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.structs import OffsetAndMetadata

NO_TRANSACTION = -1


def record_of(
    where: TopicPartition,
    offset: int,
    value: bytes | None,
    key: bytes | None = None,
    headers: list[tuple[str, bytes]] | None = None,
) -> ConsumerRecord:
    """Return a record as a consumer does."""
    sizes = (len(key or b""), len(value or b""), 0)
    return ConsumerRecord(*where, 0, offset, offset, 1, key, value, headers or [], None, *sizes)


@dataclass
class Entry:
    """A record, or a transaction marker if `record` is None."""

    record: ConsumerRecord | None
    transaction: int = NO_TRANSACTION


@dataclass
class Partition:
    """A log: offsets are indices into `entries`, also after `start` was moved by retention."""

    entries: list[Entry] = field(default_factory=list)
    start: int = 0
    open: dict[int, int] = field(default_factory=dict)
    """First offset of each open transaction."""
    aborted: set[int] = field(default_factory=set)

    @property
    def end(self) -> int:
        return len(self.entries)

    @property
    def stable_end(self) -> int:
        """Offset before which every transaction has ended."""
        return min(self.open.values(), default=self.end)

    def append(
        self,
        where: TopicPartition,
        value: bytes,
        key: bytes | None = None,
        headers: list[tuple[str, bytes]] | None = None,
        transaction: int = NO_TRANSACTION,
    ) -> int:
        offset = self.end
        if transaction != NO_TRANSACTION:
            self.open.setdefault(transaction, offset)
        self.entries.append(Entry(record_of(where, offset, value, key, headers), transaction))
        return offset

    def end_transaction(self, transaction: int, *, commit: bool) -> None:
        """Write a marker."""
        self.open.pop(transaction, None)
        if not commit:
            self.aborted.add(transaction)
        self.entries.append(Entry(None, transaction))

    def read(self, offset: int, *, committed: bool, limit: int) -> tuple[list[ConsumerRecord], int]:
        """Return records from `offset` on, and the offset to read next."""
        end = self.stable_end if committed else self.end
        records: list[ConsumerRecord] = []
        while offset < end and len(records) < limit:
            entry = self.entries[offset]
            if entry.record is not None and not (committed and entry.transaction in self.aborted):
                records.append(entry.record)
            offset += 1
        return records, offset


@dataclass
class Transaction:
    """The open transaction of a producer id."""

    number: int
    partitions: set[TopicPartition] = field(default_factory=set)
    offsets: dict[TopicPartition, OffsetAndMetadata] = field(default_factory=dict)
    group: str | None = None


@dataclass
class ProducerEntry:
    """The coordinator's entry of a transactional id."""

    producer_id: int
    epoch: int = 0
    transaction: Transaction | None = None
    last_committed: bool | None = None
    """How the last transaction ended; None before the first."""
