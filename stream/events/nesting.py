"""How deep the arrays and objects of a line are nested, by its bytes alone.

A decoder that runs out of stack would judge the same line otherwise in a thread, or below a caller, that has used more
of it; a record that is processed again after a crash must come out as the first time.
"""

import re
from typing import Final

MAX_DEPTH: Final = 500
"""Maximum nesting of arrays and objects, in ignored fields (an event's own fields nest three deep).

An empty stack of Python's default size has room for twice as many.
"""

_JSON_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\Z)', re.DOTALL)
_OPENING: Final = b"[{"
_ALL_BUT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


def is_too_deep(line: bytes) -> bool:
    """Return whether more than `MAX_DEPTH` arrays and objects are nested in a line of JSON."""
    # Nearly every line has fewer brackets altogether.
    if len(line) <= MAX_DEPTH or line.count(b"[") + line.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for bracket in _JSON_STRING.sub(b"", line).translate(None, _ALL_BUT_BRACKETS):
        depth += 1 if bracket in _OPENING else -1
        if depth > MAX_DEPTH:
            return True
    return False
