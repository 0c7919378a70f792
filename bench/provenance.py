"""Provenance of a result: the command without its paths, the machine, package versions, a hash of the code."""

import hashlib
import os
import platform
import shlex
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

PATH_FLAGS: Final = ("--json", "--work", "--record", "--out", "--stage-one", "--relevance")
"""Flags that take local paths; they change no result, so pages omit them."""

ROOT: Final = Path(__file__).parents[1]


def command_line(module: str, arguments: Sequence[str]) -> str:
    """The command as typed in a shell, without the flags in `PATH_FLAGS`: `--flag value` or `--flag=value`."""
    kept: list[str] = []
    value_follows = False
    for argument in arguments:
        if value_follows:
            value_follows = False
            continue
        name, has_value, _ = argument.partition("=")
        if name in PATH_FLAGS:
            value_follows = not has_value
            continue
        kept.append(argument)
    return shlex.join(["python", "-m", module, *kept])


def machine() -> str:
    """Number of cores and processor model."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores, {models[0] if models else platform.machine()}"


def versions(*packages: str) -> str:
    """Versions of Python and of installed packages."""
    named = [f"{package} {version(package)}" for package in packages]
    return ", ".join([f"Python {platform.python_version()}", *named])


@cache
def code_sha256(*paths: str) -> str:
    """SHA-256 over Python files, given relative to the root of the checkout; a folder includes everything below it.

    Cached for the life of the process, since later edits are not the code that runs.
    """
    digest = hashlib.sha256()
    for relative in paths:
        path = ROOT / relative
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(f"{file.relative_to(ROOT).as_posix()}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
