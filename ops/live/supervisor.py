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

_WRONG_USE: Final = 2
_LOOK_EVERY: Final = 0.2
_COMMAND: Final = "prectr"
"""The logger of the line that says why a command failed,"""
_LAST_WORDS: Final = "prectr: "
"""and how that line begins for a person."""
_WARNINGS: Final = ("WARNING", "ERROR", "CRITICAL")
_WARNING: Final = re.compile(rf"^\S+ \S+ (?:{'|'.join(_WARNINGS)}) (.*)$")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often, and how fast, a child that dies is started again.

    attempts: deaths in a row after which it is given up. first, longest: seconds to wait before the first start
    again, doubled each time up to the longest. steady: seconds after which it counts as well, and the row ends.
    grace: seconds that all children have to end when they are asked to.
    """

    attempts: int = 5
    first: float = 1.0
    longest: float = 30.0
    steady: float = 60.0
    grace: float = 60.0


class Child:
    """One child process, from its first start to its end; what it says goes to the file `log`.

    command: a `prectr` command and its flags. may_end: whether an end with exit code 0 is what it was started for.
    """

    def __init__(
        self, name: str, command: Sequence[str], log: Path, *, may_end: bool, patience: Patience = Patience()
    ) -> None:
        self.name = name
        self.restarts = 0
        self.done = False
        self._command = [sys.executable, "-m", "prectr.ops.live.parent_watchdog", *command]
        self._log = log
        self._may_end = may_end
        self._patience = patience
        self._process: subprocess.Popen[bytes] | None = None
        self._deaths = 0
        self._begun = 0.0
        self._again_at: float | None = None
        self._said = _Said(log)
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
        self._begun = now
        self._again_at = None
        with self._log.open("ab") as out:
            # A session of its own: Ctrl-C is for the parent, which asks its children in its own time.
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=out, stderr=out, start_new_session=True
            )

    def look(self, now: float) -> None:
        """Take note of what has become of the process; start it again where that is due.

        Raises:
            UsageError: it was started wrongly, so that starting it again cannot help.
            PrectrError: it has died too often in a row.
        """
        if self._process is None:
            if self._again_at is not None and now >= self._again_at:
                self.restarts += 1
                self.start(now)
            return
        code = self._process.poll()
        self._pass_on()
        if code is None:
            return
        self._ended()
        if code == 0 and self._may_end:
            self.done = True
            return
        self._deaths = 1 if now - self._begun >= self._patience.steady else self._deaths + 1
        why = self._why(code)
        if code == _WRONG_USE:
            raise UsageError(f"{self.name}: {why}")
        if self._deaths >= self._patience.attempts:
            raise PrectrError(
                f"{self.name} has ended {self._deaths} times in a row, so it is given up: {why} (what it said: "
                f"{self._log})"
            )
        wait = min(self._patience.first * 2 ** (self._deaths - 1), self._patience.longest)
        self._again_at = now + wait
        _log.warning("%s: %s; starting it again in %g s", self.name, why, wait)

    def ask_to_end(self) -> None:
        """Ask the process to commit what it does and end; it is not started again."""
        self._again_at = None
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def ended(self) -> bool:
        """Whether it has ended after it was asked to.

        Raises:
            PrectrError: it has failed at that.
        """
        if self._process is None:
            return True
        code = self._process.poll()
        if code is None:
            return False
        self._pass_on()
        self._ended()
        # A child that was not yet ready to be asked dies of the signal, with nothing under way.
        if code not in (0, -signal.SIGTERM):
            raise PrectrError(f"{self.name}: {self._why(code)} (what it said: {self._log})")
        return True

    def kill(self) -> None:
        """End the process at once; what is committed is kept."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._ended()

    def _ended(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process = None

    def _pass_on(self) -> None:
        for warning in self._said.warnings():
            _log.warning("%s: %s", self.name, warning)

    def _why(self, code: int) -> str:
        """Why it ended: its own last words, or how it died."""
        words = self._said.last_words()
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        if code == 0:
            return "it has ended, though it was not asked to"
        return words or f"it ended with exit code {code}"


class _Said:
    """What a child has said, read from its file as it grows."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._at = 0
        self._rest = b""
        self._words = ""

    def warnings(self) -> list[str]:
        """New warnings and errors among what it has logged."""
        with self._log.open("rb") as file:
            file.seek(self._at)
            new = file.read()
        self._at += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        found = []
        for line in lines:
            text = line.decode(errors="replace")
            said = decode_line(text) if text.startswith("{") else None
            if said is not None:
                if (said.logger, said.level) == (_COMMAND, "ERROR"):
                    self._words = said.message
                elif said.level in _WARNINGS:
                    found.append(said.message)
            elif text.startswith(_LAST_WORDS):
                self._words = text.removeprefix(_LAST_WORDS)
            elif match := _WARNING.match(text):
                found.append(match[1])
        return found

    def last_words(self) -> str:
        """What it said last about why it failed; once."""
        words, self._words = self._words, ""
        return words


def supervise(
    children: Sequence[Child],
    *,
    stop: Callable[[], bool],
    look: Callable[[], None] = lambda: None,
    patience: Patience = Patience(),
) -> None:
    """Run the children until `stop` says so or all have done what they were started for; none is left at the end.

    Raises:
        PrectrError: one cannot be kept running, or fails at ending; the others have been ended then.
        KeyboardInterrupt: asked to stop again while they were ending; they have been killed.
    """
    try:
        for child in children:
            child.start(time.monotonic())
        while not stop() and not all(child.done for child in children):
            for child in children:
                child.look(time.monotonic())
            look()
            time.sleep(_LOOK_EVERY)
        _end(children, patience.grace)
    except PrectrError:
        # What went wrong first says more than what goes wrong after it.
        with suppress(PrectrError):
            _end(children, patience.grace)
        raise
    finally:
        for child in children:
            child.kill()


def _end(children: Sequence[Child], grace: float) -> None:
    """End all side by side; raises the first failure when all have ended."""
    failed: PrectrError | None = None
    for child in children:
        child.ask_to_end()
    until = time.monotonic() + grace
    left = list(children)
    while left and time.monotonic() < until:
        for child in list(left):
            try:
                if child.ended():
                    left.remove(child)
            except PrectrError as error:
                failed = failed or error
                left.remove(child)
        time.sleep(_LOOK_EVERY)
    for child in left:
        _log.warning("%s: still not ended after %g s: killed; nothing committed is lost", child.name, grace)
        child.kill()
    if failed is not None:
        raise failed
