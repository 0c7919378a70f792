"""Writes results as JSON files."""

from pathlib import Path

import msgspec


def to_json(result: object) -> bytes:
    """Encode structs, dataclasses, lists and dicts as indented JSON with a trailing line break."""
    return msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n"


def write_json(path: Path | None, result: object) -> None:
    """Write `result` to `path`; None writes nothing (an optional `--json FILE` that was not given)."""
    if path is not None:
        path.write_bytes(to_json(result))
