"""Python's cyclic garbage collector, kept from walking through everything that a stage holds.

Left alone, it looks at all held pages again and again as events are made: more than half of the event path.
"""

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_WHOLE_EVERY: Final = 60.0
"""Seconds between two looks at everything: cycles that have grown old are found then."""


@contextmanager
def collected_by_hand() -> Iterator[Callable[[], None]]:
    """Collect only when the function given is called, which is to be a few times a second; what is there now, never."""
    gc.collect()
    gc.freeze()
    gc.disable()
    last = time.monotonic()

    def tidy() -> None:
        nonlocal last
        if time.monotonic() - last < _WHOLE_EVERY:
            gc.collect(0)
        else:
            gc.collect()
            last = time.monotonic()

    try:
        yield tidy
    finally:
        gc.enable()
        gc.unfreeze()
