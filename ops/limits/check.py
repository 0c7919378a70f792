"""Compares what a process needs with its limits, at its start: what prevents it is an error, what may, a warning."""

import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Final

from prectr.ops.doctor.findings import Finding
from prectr.ops.doctor.host.disk import check_folder
from prectr.ops.limits.needs import Needs
from prectr.ops.limits.process_limits import ProcessLimits, own_limits, raise_open_files
from prectr.state.errors import SystemLimitError

_RAISE_FILES: Final = "raise it, by ulimit -n {} or LimitNOFILE={} of a unit"
_TEMPORARY_BYTES: Final = 16 << 20
_log = logging.getLogger(__name__)


def check_limits(needs: Needs) -> None:
    """Raise the soft limit of open files to what may be needed, then log a warning for each limit that is too low.

    Raises:
        SystemLimitError: with this limit the process cannot start, or there is no folder for temporary files.
    """
    raise_open_files(needs.most_open_files)
    for finding in limit_findings(needs, own_limits()):
        text = f"{finding.name}: {finding.observed}: {finding.advice}"
        if finding.severity == "error":
            raise SystemLimitError(text)
        _log.warning("%s", text)


def limit_findings(needs: Needs, limits: ProcessLimits) -> Iterator[Finding]:
    """What is too low, or too full; nothing if all is well."""
    if limits.open_files < needs.most_open_files:
        is_error = limits.open_files < needs.open_files
        yield Finding(
            "limit of open files",
            "error" if is_error else "warning",
            f"{limits.open_files:,}, "
            + (
                f"{needs.open_files:,} are needed"
                if is_error
                else f"up to {needs.most_open_files:,} as the state grows"
            ),
            _RAISE_FILES.format(needs.most_open_files, needs.most_open_files),
        )
    if limits.threads_left < needs.threads:
        yield Finding(
            "limit of threads",
            "warning",
            f"{max(limits.threads_left, 0):,} can still be started, up to {needs.threads:,} are needed",
            "raise it, by ulimit -u, TasksMax= of a unit or pids_limit of a container",
        )
    if limits.file_size != sys.maxsize:
        yield Finding(
            "limit of the size of a file",
            "warning",
            f"{limits.file_size:,} bytes; a process whose log, state or checkpoint reaches it ends, without loss",
            "lift it, by ulimit -f unlimited or LimitFSIZE=infinity of a unit",
        )
    yield from _temporary_files()
    for name, folder in needs.folders.items():
        found = check_folder(name, folder)
        if found.severity == "error":
            yield Finding(name, "warning", found.observed, found.advice)


def _temporary_files() -> Iterator[Finding]:
    name, advice = "temporary files", "make room in it, or set TMPDIR to another folder"
    try:
        # Writes a file, and raises where none of the usual folders takes it.
        folder = tempfile.gettempdir()
    except FileNotFoundError as error:
        yield Finding(name, "error", str(error.strerror), "make /tmp writable, or set TMPDIR to a folder")
        return
    free = shutil.disk_usage(folder).free
    if free < _TEMPORARY_BYTES:
        yield Finding(name, "warning", f"{folder} has {free / (1 << 20):,.1f} MiB left", advice)
