"""Python's cyclic garbage collector, kept from walking through everything that a stage holds.

Left alone, it looks at all held pages again and again as events are made: more than half of the event path.
"""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_YOUNG_INTERVAL: Final = 15.0
"""Seconds between two looks at what is new; what is still held then is looked at for nothing."""
_FULL_INTERVAL: Final = 60.0
"""Seconds between two looks at everything: cycles that have grown old are found then."""


@contextmanager
def manual_gc() -> Iterator[Callable[[], None]]:
    """Collect only when the function given is called, every few seconds at the most; what is there now, never."""
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
