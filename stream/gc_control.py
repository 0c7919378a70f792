"""Control of Python's cyclic garbage collector, so that it does not scan everything that a stage holds.

With automatic collection every new event triggers scans of all pending pages: more than half of the event path.
"""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_YOUNG_INTERVAL: Final = 15.0
"""Seconds between collections of the young generation; objects that are still in use are scanned for nothing."""
_FULL_INTERVAL: Final = 60.0
"""Seconds between full collections, which find cycles that have reached the oldest generation."""


@contextmanager
def manual_gc() -> Iterator[Callable[[], None]]:
    """Disable automatic collection; objects that exist already are never collected.

    The function that is yielded collects at most every few seconds; call it between micro-batches.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    last_young = last_full = time.monotonic()

    def collect() -> None:
        nonlocal last_young, last_full
        now = time.monotonic()
        if now - last_full >= _FULL_INTERVAL:
            gc.collect()
            last_young = last_full = now
        elif now - last_young >= _YOUNG_INTERVAL:
            gc.collect(0)
            last_young = now

    try:
        yield collect
    finally:
        gc.enable()
        gc.unfreeze()
