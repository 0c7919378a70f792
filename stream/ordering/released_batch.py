"""A step of a runner's output: examples in the total order, on their way to the sinks."""

from collections.abc import Sequence
from typing import NamedTuple

from prectr.stream.join.operator import RejectedRecord
from prectr.stream.records import Example


class ReleasedBatch(NamedTuple):
    """Examples that are due.

    Attributes:
        examples: in the total order.
        watermark: none of the later examples has a close time up to this (ms).
        rejected: records for the dead letters that were read for this batch.
    """

    examples: list[Example]
    watermark: int
    rejected: Sequence[RejectedRecord] = ()
