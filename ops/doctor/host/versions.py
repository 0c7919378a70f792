"""Versions of the libraries that the live system needs."""

import importlib.util
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from prectr.ops.doctor.findings import Finding
from prectr.stream.stages import described

_LIBRARIES: Final = ("kafka-python", "rocksdict", "msgspec", "torch")
_MIN_KAFKA_PYTHON: Final = (3, 0, 12)
"""The first version tested with transactions, static members and commit metadata."""
_CODECS: Final = ("lz4", "crc32c", "zstandard")


def check_versions() -> Iterator[Finding]:
    """Check the installed versions and the codecs."""
    found = {name: _version(name) for name in _LIBRARIES}
    observed = ", ".join(f"{name} {number or 'missing'}" for name, number in found.items())
    observed = f"prectr {_version('prectr-streaming')}, Python {platform.python_version()}, {described()}, {observed}"
    client = found["kafka-python"] or "0"
    if None in found.values() or _version_tuple(client) < _MIN_KAFKA_PYTHON:
        yield Finding("libraries", "error", observed, "install the pinned versions: make setup")
    else:
        yield Finding("libraries", "ok", observed)
    missing = [name for name in _CODECS if importlib.util.find_spec(name) is None]
    if missing:
        advice = f"pip install {' '.join(missing)}: the client needs them for compression and checksums"
        yield Finding("codecs", "error", f"missing: {', '.join(missing)}", advice)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _version_tuple(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())
