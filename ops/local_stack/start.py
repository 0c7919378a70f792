"""Starts the whole system in the background, and waits until all of it answers."""

import logging
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from prectr.ops.local_stack.broker import HOW as GET_KAFKA
from prectr.ops.local_stack.broker import kafka_home
from prectr.ops.local_stack.ports import check_ports
from prectr.ops.local_stack.processes import MARK, processes_of
from prectr.ops.local_stack.prometheus import HOW as GET_PROMETHEUS
from prectr.ops.local_stack.ready import parts
from prectr.ops.local_stack.settings import CHECKOUT, UpSettings
from prectr.ops.local_stack.stop import stop
from prectr.state.errors import PrectrError
from prectr.state.lock import FolderLock

_LOOK_EVERY: Final = 0.3
_LAST_LINES: Final = 15
_STOPPED: Final = re.compile(r" system +\| (\w+)\.1 stopped ")
"""How honcho says that a part has ended."""
_log = logging.getLogger("prectr")


def start(settings: UpSettings) -> bool:
    """Start what the Procfile names; returns whether it was not up already.

    Raises:
        PrectrError: something is missing, a port is in use, or a part does not come up: all has been ended then.
        KeyboardInterrupt: likewise.
    """
    lock = FolderLock(settings.dir)
    try:
        return _started(settings)
    finally:
        lock.release()


def _started(settings: UpSettings) -> bool:
    running = processes_of(settings.dir)
    if any(process.part == "" for process in running):
        return False
    if running:
        raise PrectrError(f"what is left of an earlier run in {settings.dir} is still there: make down ends it")
    _check_tools()
    check_ports(settings.ports)
    honcho = _begin(settings)
    try:
        _wait(settings, honcho)
    except BaseException:
        stop(settings.dir)
        raise
    return True


def _check_tools() -> None:
    missing = [] if kafka_home() is not None else [f"Kafka: {GET_KAFKA}"]
    missing += [] if shutil.which("prometheus") else [f"Prometheus: {GET_PROMETHEUS}"]
    if missing:
        raise PrectrError("\n".join(["make up needs what is not here:", *missing]))


def _begin(settings: UpSettings) -> subprocess.Popen[bytes]:
    """Start honcho in a session of its own: it outlives the terminal."""
    binaries = Path(sys.executable).parent
    environment = {
        **os.environ,
        **settings.environment(),
        MARK: str(settings.dir),
        "PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
    }
    command = [sys.executable, "-m", "honcho", "--no-colour", "--app-root", str(CHECKOUT), "start"]
    with settings.log.open("wb") as out:
        return subprocess.Popen(
            command,
            cwd=CHECKOUT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


def _wait(settings: UpSettings, honcho: subprocess.Popen[bytes]) -> None:
    begun = time.monotonic()
    left = parts(settings)
    while left:
        for name, answers in list(left.items()):
            if answers():
                _log.info("%s: up after %.0f s", name, time.monotonic() - begun)
                del left[name]
        if honcho.poll() is not None:
            raise PrectrError(f"make up: a part has ended, and so all. {_last_words(settings)}")
        if time.monotonic() - begun > settings.wait:
            raise PrectrError(
                f"make up: {', '.join(left)} did not answer within {settings.wait} s (UP_WAIT), so all has been ended. "
                f"{_last_words(settings)}"
            )
        time.sleep(_LOOK_EVERY)


def _last_words(settings: UpSettings) -> str:
    """What the part said that ended first, or else what was said last."""
    log, said = settings.log, settings.log.read_text(errors="replace").splitlines()
    first = next(filter(None, map(_STOPPED.search, said)), None)
    if first is not None and first[1] == "kafka" and settings.kafka_log.exists():
        log, said = settings.kafka_log, settings.kafka_log.read_text(errors="replace").splitlines()
    elif first is not None:
        said = [line for line in said if f" {first[1]}.1 " in line]
    return "\n".join([f"From {log}:", *said[-_LAST_LINES:]])
