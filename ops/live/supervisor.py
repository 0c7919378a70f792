"""Child processes that are kept running: one that dies is started again, one that keeps dying ends them all."""

import logging
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prectr.ops.cli.log_format import decode_line
from prectr.state.errors import PrectrError, UsageError

_USAGE_ERROR: Final = 2
_POLL_INTERVAL: Final = 0.2
_ERROR_LOGGER: Final = "prectr"
"""The logger of the line that says why a command failed,"""
_ERROR_PREFIX: Final = "prectr: "
"""and how that line begins for a person."""
_WARNING_SEVERITIES: Final = ("WARNING", "ERROR", "CRITICAL")
_WARNING_LINE: Final = re.compile(rf"^\S+ \S+ (?:{'|'.join(_WARNING_SEVERITIES)}) (.*)$")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """How often, and how fast, a child that dies is started again.

    attempts: deaths in a row after which it is given up. first, longest: seconds to wait before the first start
    again, doubled each time up to the longest. steady: seconds after which it counts as well, and the row ends.
    grace: seconds that all children have to end when they are asked to.
    """

    max_failures: int = 5
    initial_delay: float = 1.0
    max_delay: float = 30.0
    reset_after: float = 60.0
    grace_period: float = 60.0


class ManagedProcess:
    """One child process, from its first start to its end; what it says goes to the file `log`.

    command: a `prectr` command and its flags. may_end: whether an end with exit code 0 is what it was started for.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        may_exit: bool,
        restart_policy: RestartPolicy = RestartPolicy(),
    ) -> None:
        self.name = name
        self.restarts = 0
        self.completed = False
        self._command = [sys.executable, "-m", "prectr.ops.live.parent_watchdog", *command]
        self._log = log
        self._may_exit = may_exit
        self._restart_policy = restart_policy
        self._process: subprocess.Popen[bytes] | None = None
        self._failures = 0
        self._started_at = 0.0
        self._restart_at: float | None = None
        self._log_tail = _LogTail(log)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")

    @property
    def running(self) -> bool:
        """Whether there is a process now."""
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """Its process id, where there is a process."""
        return self._process.pid if self._process else None

    def start(self, now: float) -> None:
        """Start the process. now: seconds of a clock that never goes back."""
        self._started_at = now
        self._restart_at = None
        with self._log.open("ab") as out:
            # A session of its own: Ctrl-C is for the parent, which asks its children in its own time.
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True
            )

    def poll(self, now: float) -> None:
        """Take note of what has become of the process; start it again where that is due.

        Raises:
            UsageError: it was started wrongly, so that starting it again cannot help.
            PrectrError: it has died too often in a row.
        """
        if self._process is None:
            if self._restart_at is not None and now >= self._restart_at:
                self.restarts += 1
                self.start(now)
            return
        code = self._process.poll()
        self._forward_warnings()
        if code is None:
            return
        self._release()
        if code == 0 and self._may_exit:
            self.completed = True
            return
        self._failures = 1 if now - self._started_at >= self._restart_policy.reset_after else self._failures + 1
        reason = self._exit_reason(code)
        if code == _USAGE_ERROR:
            raise UsageError(f"{self.name}: {reason}")
        if self._failures >= self._restart_policy.max_failures:
            raise PrectrError(
                f"{self.name} has ended {self._failures} times in a row, so it is given up: {reason} (what it said: "
                f"{self._log})"
            )
        delay = min(self._restart_policy.initial_delay * 2 ** (self._failures - 1), self._restart_policy.max_delay)
        self._restart_at = now + delay
        _log.warning("%s: %s; starting it again in %g s", self.name, reason, delay)

    def terminate(self) -> None:
        """Ask the process to commit what it does and end; it is not started again."""
        self._restart_at = None
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def has_exited(self) -> bool:
        """Whether it has ended after it was asked to.

        Raises:
            PrectrError: it has failed at that.
        """
        if self._process is None:
            return True
        code = self._process.poll()
        if code is None:
            return False
        self._forward_warnings()
        self._release()
        # A child that was not yet ready to be asked dies of the signal, with nothing under way.
        if code not in (0, -signal.SIGTERM):
            raise PrectrError(f"{self.name}: {self._exit_reason(code)} (what it said: {self._log})")
        return True

    def kill(self) -> None:
        """End the process at once; what is committed is kept."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._release()

    def _release(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process = None

    def _forward_warnings(self) -> None:
        for warning in self._log_tail.read_warnings():
            _log.warning("%s: %s", self.name, warning)

    def _exit_reason(self, code: int) -> str:
        """Why it ended: its own last words, or how it died."""
        message = self._log_tail.pop_error()
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        if code == 0:
            return "it has ended, though it was not asked to"
        return message or f"it ended with exit code {code}"


class _LogTail:
    """What a child has said, read from its file as it grows."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._offset = 0
        self._partial = b""
        self._error = ""

    def read_warnings(self) -> list[str]:
        """New warnings and errors among what it has logged."""
        with self._log.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        self._offset += len(new)
        *lines, self._partial = (self._partial + new).split(b"\n")
        found = []
        for line in lines:
            text = line.decode(errors="replace")
            entry = decode_line(text) if text.startswith("{") else None
            if entry is not None:
                if (entry.logger, entry.severity) == (_ERROR_LOGGER, "ERROR"):
                    self._error = entry.message
                elif entry.severity in _WARNING_SEVERITIES:
                    found.append(entry.message)
            elif text.startswith(_ERROR_PREFIX):
                self._error = text.removeprefix(_ERROR_PREFIX)
            elif match := _WARNING_LINE.match(text):
                found.append(match[1])
        return found

    def pop_error(self) -> str:
        """What it said last about why it failed; once."""
        error, self._error = self._error, ""
        return error


def supervise(
    processes: Sequence[ManagedProcess],
    *,
    stop: Callable[[], bool],
    on_poll: Callable[[], None] = lambda: None,
    restart_policy: RestartPolicy = RestartPolicy(),
) -> None:
    """Run the children until `stop` says so or all have done what they were started for; none is left at the end.

    Raises:
        PrectrError: one cannot be kept running, or fails at ending; the others have been ended then.
        KeyboardInterrupt: asked to stop again while they were ending; they have been killed.
    """
    try:
        for process in processes:
            process.start(time.monotonic())
        while not stop() and not all(child.completed for child in processes):
            for process in processes:
                process.poll(time.monotonic())
            on_poll()
            time.sleep(_POLL_INTERVAL)
        _terminate_all(processes, restart_policy.grace_period)
    except PrectrError:
        # What went wrong first says more than what goes wrong after it.
        with suppress(PrectrError):
            _terminate_all(processes, restart_policy.grace_period)
        raise
    finally:
        for process in processes:
            process.kill()


def _terminate_all(processes: Sequence[ManagedProcess], grace_period: float) -> None:
    """End all side by side; raises the first failure when all have ended."""
    failed: PrectrError | None = None
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + grace_period
    running = list(processes)
    while running and time.monotonic() < deadline:
        for process in list(running):
            try:
                if process.has_exited():
                    running.remove(process)
            except PrectrError as error:
                failed = failed or error
                running.remove(process)
        time.sleep(_POLL_INTERVAL)
    for process in running:
        _log.warning("%s: still not ended after %g s: killed; nothing committed is lost", process.name, grace_period)
        process.kill()
    if failed is not None:
        raise failed
