"""Python's cyclic garbage collector, kept from walking through everything that a stage holds.

Left alone, it looks at all held pages again and again as events are made: more than half of the event path.
"""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_EVERY: Final = 15.0
"""Seconds between two looks at what is new; what is still held then is looked at for nothing."""
_WHOLE_EVERY: Final = 60.0
"""Seconds between two looks at everything: cycles that have grown old are found then."""


@contextmanager
def collected_by_hand() -> Iterator[Callable[[], None]]:
    """Collect only when the function given is called, every few seconds at the most; what is there now, never."""
    gc.collect()
    gc.freeze()
    gc.disable()
    last = whole = time.monotonic()

    def tidy() -> None:
        nonlocal last, whole
        now = time.monotonic()
        if now - whole >= _WHOLE_EVERY:
            gc.collect()
            last = whole = now
        elif now - last >= _EVERY:
            gc.collect(0)
            last = now

    try:
        yield tidy
    finally:
        gc.enable()
        gc.unfreeze()
