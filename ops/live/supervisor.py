"""Supervises child processes: a process that dies is restarted; one that keeps dying stops them all."""

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from prectr.ops.live.log_tail import LogTail
from prectr.state.errors import PrectrError, UsageError

_USAGE_ERROR: Final = 2
_POLL_INTERVAL: Final = 0.2
_LOG_INTERVAL: Final = 60.0
"""Seconds between two messages on a process that fails during an outage of the broker."""
_MAX_DOUBLINGS: Final = 30
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """When a process that has died is restarted. All times in seconds.

    max_failures: consecutive failures after which all processes are stopped. initial_delay, max_delay: delay before a
    restart, doubled after each failure. reset_after: uptime after which the failures are forgotten. grace_period: time
    to stop after SIGTERM.
    """

    max_failures: int = 5
    initial_delay: float = 1.0
    max_delay: float = 30.0
    reset_after: float = 60.0
    grace_period: float = 60.0


class Failure(NamedTuple):
    """The end of a process that should go on. at: seconds of a monotonic clock."""

    at: float
    process: str
    reason: str
    log: Path


class ManagedProcess:
    """A child process, over all of its restarts.

    Args:
        command: a `prectr` command and its flags.
        log: file for its output.
        may_exit: whether exit code 0 means that its work is done.
        is_outage: whether the broker is unavailable now: the process is restarted, and its failure does not count
            towards `max_failures`.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        may_exit: bool,
        restart_policy: RestartPolicy = RestartPolicy(),
        is_outage: Callable[[], bool] = lambda: False,
    ) -> None:
        self.name = name
        self.restarts = 0
        self.completed = False
        self._command = [sys.executable, "-m", "prectr.ops.live.parent_watchdog", *command]
        self._log = log
        self._may_exit = may_exit
        self._restart_policy = restart_policy
        self._is_outage = is_outage
        self._outage_failures = 0
        self._logged_at = float("-inf")
        self._process: subprocess.Popen[bytes] | None = None
        self._failures: list[Failure] = []
        self._started_at = 0.0
        self._restart_at: float | None = None
        self._log_tail = LogTail(log)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")

    @property
    def running(self) -> bool:
        """Whether the process is running."""
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """The process id; None if it is not running."""
        return self._process.pid if self._process else None

    def start(self, now: float) -> None:
        """Start the process. now: seconds of a monotonic clock."""
        self._started_at = now
        self._restart_at = None
        with self._log.open("ab") as out:
            # In a session of its own: Ctrl-C goes to the parent, which stops its children in order.
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True
            )

    def poll(self, now: float) -> None:
        """Check the process; restart it if that is due.

        Raises:
            UsageError: the process has ended with a usage error, so a restart cannot help.
            PrectrError: it has failed too often in a row.
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
        reason = self._exit_reason(code)
        failure = Failure(now, self.name, reason, self._log)
        if code == _USAGE_ERROR:
            self._failures.append(failure)
            raise UsageError(f"{self.name}: {reason}")
        if self._is_outage():
            self._outage_failures += 1
            self._restart_at = now + self._delay(self._outage_failures)
            if now - self._logged_at >= _LOG_INTERVAL:
                self._logged_at = now
                _log.warning("%s: %s; it is restarted until Kafka answers", self.name, reason)
            return
        self._outage_failures = 0
        if now - self._started_at >= self._restart_policy.reset_after:
            self._failures.clear()
        self._failures.append(failure)
        count = len(self._failures)
        if count >= self._restart_policy.max_failures:
            raise PrectrError(f"{self.name} has failed {count} times in a row: {reason} (log: {self._log})")
        delay = self._delay(count)
        self._restart_at = now + delay
        _log.warning("%s: %s; restarting it in %g s", self.name, reason, delay)

    def _delay(self, failures: int) -> float:
        policy = self._restart_policy
        return min(policy.initial_delay * 2.0 ** min(failures - 1, _MAX_DOUBLINGS), policy.max_delay)

    def recent_failures(self, now: float) -> list[Failure]:
        """Its failures in a row; none if it has been running for long since."""
        recovered = self.running and now - self._started_at >= self._restart_policy.reset_after
        return [] if recovered else list(self._failures)

    def terminate(self) -> None:
        """Send SIGTERM: the process commits and exits; it is not restarted."""
        self._restart_at = None
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def has_exited(self) -> bool:
        """Whether it has exited after `terminate`.

        Raises:
            PrectrError: it has exited with an error.
        """
        if self._process is None:
            return True
        code = self._process.poll()
        if code is None:
            return False
        self._forward_warnings()
        self._release()
        # A child that has not installed its handler yet dies from the signal; it has no work in progress.
        if code not in (0, -signal.SIGTERM):
            raise PrectrError(f"{self.name}: {self._exit_reason(code)} (log: {self._log})")
        return True

    def kill(self) -> None:
        """Kill the process; committed work is kept."""
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
        """Why it ended: its last error, its signal or its exit code."""
        message = self._log_tail.pop_error()
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        if code == 0:
            return "exited unexpectedly with code 0"
        return message or f"exited with code {code}"


def supervise(
    processes: Sequence[ManagedProcess],
    *,
    stop: Callable[[], bool],
    on_poll: Callable[[], None] = lambda: None,
    restart_policy: RestartPolicy = RestartPolicy(),
) -> None:
    """Run the processes until `stop` returns true or all are completed; none is left running.

    Raises:
        PrectrError: a process cannot be kept running or fails while stopping; the others have been stopped.
        KeyboardInterrupt: a second stop request while they were stopping; they have been killed.
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
    except PrectrError as error:
        final = _with_first_cause(error, processes)
        # The first error is the one to report.
        with suppress(PrectrError):
            _terminate_all(processes, restart_policy.grace_period)
        raise final from error
    finally:
        for process in processes:
            process.kill()


def _with_first_cause(error: PrectrError, processes: Sequence[ManagedProcess]) -> PrectrError:
    """Return an error that begins with the first failure, of which later ones are often but a consequence."""
    now = time.monotonic()
    failures = sorted(failure for process in processes for failure in process.recent_failures(now))
    if not failures or failures[0].reason in error.message:
        return error
    first, *others = failures
    followed = "1 failure" if len(others) == 1 else f"{len(others)} failures"
    return type(error)(
        f"{first.process}: {first.reason} (log: {first.log}). {followed} followed; the last: {error.message}"
    )


def _terminate_all(processes: Sequence[ManagedProcess], grace_period: float) -> None:
    """Stop all in parallel; raises the first failure once all have ended."""
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
        _log.warning("%s: did not stop within %g s: killed; committed work is kept", process.name, grace_period)
        process.kill()
    if failed is not None:
        raise failed
