"""Pages and clicks of a sample of the request ids, as arrays: enough to join them in any order, in bounded memory."""

from array import array
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from prectr.stream.events.contract import Click, Item, ResultPage

MAX_ENTRIES: Final = 4 << 20
"""Pages, clicks and shown items held at most: 250 MB with the work on them. 350,000 pages of 10 items fit."""

# As in stage join: maps are sorted by key, so that equal content has equal bytes.
_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class SampledPages(NamedTuple):
    """Pages in order of arrival.

    key, request: uint64[P], hashes of (user, request id) and of the request id.
    ts, watermark: int64[P], ms; the watermark of its partition when it came.
    number: int64[P], of its event in the log. content: uint64[P], hash of all fields. item_count: int64[P].
    shown: uint64[sum of item_count], hashes of (key, item), page by page.
    """

    key: NDArray[np.uint64]
    request: NDArray[np.uint64]
    ts: NDArray[np.int64]
    watermark: NDArray[np.int64]
    number: NDArray[np.int64]
    content: NDArray[np.uint64]
    item_count: NDArray[np.int64]
    shown: NDArray[np.uint64]


class SampledClicks(NamedTuple):
    """Clicks in order of arrival: as `SampledPages`, and `item`: uint64[C], hash of (key, item)."""

    key: NDArray[np.uint64]
    request: NDArray[np.uint64]
    ts: NDArray[np.int64]
    watermark: NDArray[np.int64]
    number: NDArray[np.int64]
    item: NDArray[np.uint64]


class _Columns:
    """Columns of 64-bit numbers, signed by the letter `q`, else unsigned."""

    def __init__(self, types: str) -> None:
        self.arrays = [array(each) for each in types]

    def append(self, *row: int) -> None:
        for column, value in zip(self.arrays, row, strict=True):
            column.append(value)

    def numpy(self) -> list[Any]:
        return [np.array(each, dtype=each.typecode) for each in self.arrays]

    def keep(self, mask: NDArray[np.bool_]) -> None:
        self.arrays = [array(each.typecode, np.array(each)[mask].tobytes()) for each in self.arrays]


class KeySample:
    """Keeps every page and click of the (user, request id) pairs whose hash ends in enough zeros.

    All events of such a key are kept, wherever in the log they are, so whatever is counted by key is exact for the
    sample and unbiased for the log. When there are too many entries, half of the keys are dropped.
    """

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._max_entries = max_entries
        self._zeros = 0
        self._pages = _Columns("QQqqqQq")
        self._shown = array("Q")
        self._clicks = _Columns("QQqqqQ")
        self._entries = 0

    @property
    def fraction(self) -> float:
        """The share of all keys that is in the sample; 1: all of them."""
        return float(0.5**self._zeros)

    def add_page(self, page: ResultPage, watermark: int, number: int) -> None:
        """Add a page if its key is in the sample."""
        prefix, key = _key(page.user_id, page.request_id)
        if key & ((1 << self._zeros) - 1):
            return
        content, request = _hash(_encode(page)), _hash(page.request_id.encode())
        self._pages.append(key, request, page.ts, watermark, number, content, len(page.items))
        self._shown.extend(_item_hashes(prefix, page.items))
        self._added(1 + len(page.items))

    def add_click(self, click: Click, watermark: int, number: int) -> None:
        """Add a click if its key is in the sample."""
        prefix, key = _key(click.user_id, click.request_id)
        if key & ((1 << self._zeros) - 1):
            return
        item, request = _hash(prefix + click.item_id.encode()), _hash(click.request_id.encode())
        self._clicks.append(key, request, click.ts, watermark, number, item)
        self._added(1)

    def pages(self) -> SampledPages:
        """Return the pages of the sample."""
        return SampledPages(*(*self._pages.numpy(), np.array(self._shown, dtype=np.uint64)))

    def clicks(self) -> SampledClicks:
        """Return the clicks of the sample."""
        return SampledClicks(*self._clicks.numpy())

    def _added(self, entries: int) -> None:
        self._entries += entries
        while self._entries > self._max_entries:
            self._zeros += 1
            self._drop_keys()

    def _drop_keys(self) -> None:
        mask = np.uint64((1 << self._zeros) - 1)
        pages = self.pages()
        kept_pages = (pages.key & mask) == 0
        self._shown = array("Q", pages.shown[np.repeat(kept_pages, pages.item_count)].tobytes())
        self._pages.keep(kept_pages)
        self._clicks.keep((self.clicks().key & mask) == 0)
        self._entries = len(self._pages.arrays[0]) + len(self._shown) + len(self._clicks.arrays[0])


def _key(user_id: str, request_id: str) -> tuple[bytes, int]:
    digest = blake2b(f"{user_id}\0{request_id}".encode(), digest_size=8).digest()
    return digest, int.from_bytes(digest, "little")


def _item_hashes(prefix: bytes, items: Sequence[Item]) -> list[int]:
    return [_hash(prefix + item.item_id.encode()) for item in items]


def _hash(value: bytes) -> int:
    return int.from_bytes(blake2b(value, digest_size=8).digest(), "little")
