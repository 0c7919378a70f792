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

from prectr.ops.local_stack.broker import INSTALL_HINT as GET_KAFKA
from prectr.ops.local_stack.broker import kafka_home
from prectr.ops.local_stack.ports import check_ports
from prectr.ops.local_stack.processes import RUN_VARIABLE, processes_of
from prectr.ops.local_stack.prometheus import INSTALL_HINT as GET_PROMETHEUS
from prectr.ops.local_stack.ready import readiness_checks
from prectr.ops.local_stack.settings import CHECKOUT, UpSettings
from prectr.ops.local_stack.stop import stop
from prectr.state.errors import PrectrError
from prectr.state.lock import FolderLock

_POLL_INTERVAL: Final = 0.3
_LAST_LINES: Final = 15
_STOPPED: Final = re.compile(r" system +\| (\w+)\.1 stopped ")
"""The line by which honcho logs that a service has ended."""
_log = logging.getLogger("prectr")


def start(settings: UpSettings) -> bool:
    """Start the services of the Procfile; returns False if they are up already.

    Raises:
        PrectrError: a program is missing, a port is in use, or a service does not become ready; all are stopped then.
        KeyboardInterrupt: interrupted; all are stopped.
    """
    lock = FolderLock(settings.dir)
    try:
        return _start(settings)
    finally:
        lock.release()


def _start(settings: UpSettings) -> bool:
    running = processes_of(settings.dir)
    if any(process.service == "" for process in running):
        return False
    if running:
        raise PrectrError(f"processes of an earlier run in {settings.dir} are still running: stop them with make down")
    _check_tools()
    check_ports(settings.ports)
    honcho = _start_honcho(settings)
    try:
        _wait_until_ready(settings, honcho)
    except BaseException:
        stop(settings.dir)
        raise
    return True


def _check_tools() -> None:
    missing = [] if kafka_home() is not None else [f"Kafka: {GET_KAFKA}"]
    missing += [] if shutil.which("prometheus") else [f"Prometheus: {GET_PROMETHEUS}"]
    if missing:
        raise PrectrError("\n".join(["make up needs programs that are not installed:", *missing]))


def _start_honcho(settings: UpSettings) -> subprocess.Popen[bytes]:
    """Start honcho in its own session, so that it outlives the terminal."""
    binaries = Path(sys.executable).parent
    environment = {
        **os.environ,
        **settings.environment(),
        RUN_VARIABLE: str(settings.dir),
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


def _wait_until_ready(settings: UpSettings, honcho: subprocess.Popen[bytes]) -> None:
    started = time.monotonic()
    pending = readiness_checks(settings)
    while pending:
        for name, answers in list(pending.items()):
            if answers():
                _log.info("%s: ready after %.0f s", name, time.monotonic() - started)
                del pending[name]
        if honcho.poll() is not None:
            raise PrectrError(f"make up: a service has ended, so all were stopped. {_failure_log(settings)}")
        if time.monotonic() - started > settings.ready_timeout:
            raise PrectrError(
                f"make up: {', '.join(pending)} not ready within {settings.ready_timeout} s (UP_READY_TIMEOUT), so all "
                f"were stopped. {_failure_log(settings)}"
            )
        time.sleep(_POLL_INTERVAL)


def _failure_log(settings: UpSettings) -> str:
    """The last log lines of the service that ended first, else of all."""
    log, lines = settings.log, settings.log.read_text(errors="replace").splitlines()
    first = next(filter(None, map(_STOPPED.search, lines)), None)
    if first is not None and first[1] == "kafka" and settings.kafka_log.exists():
        log, lines = settings.kafka_log, settings.kafka_log.read_text(errors="replace").splitlines()
    elif first is not None:
        lines = [line for line in lines if f" {first[1]}.1 " in line]
    return "\n".join([f"From {log}:", *lines[-_LAST_LINES:]])
