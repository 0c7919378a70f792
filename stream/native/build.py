"""Whether the extension is built, and from the sources that are here."""

from functools import cache
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Final

_SOURCES: Final = Path(__file__).parent / "src"
_ADVICE: Final = "with a C++20 compiler (Debian: apt install g++ python3-dev), install again"


def digest_of_sources(folder: Path = _SOURCES) -> str:
    """Return the SHA-256 of all sources, in hexadecimal; empty where there are none, as in a wheel."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".cpp", ".h"))
    return sha256(b"".join(path.read_bytes() for path in paths)).hexdigest() if paths else ""


@cache
def problem_of_build() -> str:
    """Return why the extension cannot be used, and what to do about it; empty if it can."""
    try:
        core = import_module("prectr.stream.native.core")
    except ImportError as error:
        return f"the native core is not built: {_ADVICE} ({error})"
    if (digest := digest_of_sources()) and digest != core.SOURCES:
        return f"the native core was built from other sources: {_ADVICE}"
    return ""
