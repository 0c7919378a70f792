"""The whole live system of one scenario: two stream processes and a trainer, kept at work, watched, and restarted."""

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics
from testkit.command import RunningCommand
from testkit.kafka_broker import Broker, free_ports
from tests.faults.feed import EventFeed
from tests.faults.output_probe import CheckpointRecovery, OutputProbe, RecoveryTimer
from tests.faults.reports.expected_reports import ExpectedReport
from tests.faults.reports.watch import ReportWatch
from tests.faults.snapshots import FLAGS
from tests.faults.tmpfs import TmpfsVolume
from tests.kafka.live import SESSION_TIMEOUT, Live

STREAMS: Final = ("1", "2")
THIRD_STREAM: Final = "3"
TRAINER: Final = "train"
SESSION_SECONDS: Final = float(SESSION_TIMEOUT)
_POLL_INTERVAL: Final = 0.05
_RECOVERY_TIMEOUT: Final = 60.0
_CONNECT_TIMEOUT: Final = "180"
"""Seconds that a process keeps trying while the broker does not answer at its start."""


class LiveSystem:
    """Processes by name: `1`, `2` and, for a while, `3` are stream processes, `train` is the trainer.

    Each is restarted with the command that first started it, as an operator would. A process that ends without being
    made to by a fault is a failure.
    """

    def __init__(
        self,
        broker: Broker,
        live: Live,
        rng: random.Random,
        make_feed: Callable[[Connection, str], EventFeed],
        *,
        snapshots: bool,
        spared: frozenset[str] = frozenset(),
    ) -> None:
        """Create the topics, and the feed of events from connection and topic. spared: processes that no fault hits."""
        self.broker = broker
        self.live = live
        self.rng = rng
        self.snapshots = live.folder / "stored" / "snapshots" if snapshots else None
        self.running: dict[str, RunningCommand] = {}
        self.started_at = time.monotonic()
        self.ports = dict(zip((*STREAMS, THIRD_STREAM, TRAINER), free_ports(4), strict=True))
        """Of the metrics, by process."""
        self._volumes: dict[str, TmpfsVolume] = {}
        self._watches: list[ReportWatch] = []
        self._spared = spared
        live.create()
        # By default the client waits up to 30 s before it reconnects, and nothing would be loaded meanwhile.
        self.connection = Connection(broker.address, {"reconnect_backoff_max_ms": 200}, connect_timeout=30)
        self.topics = Topics(live.prefix)
        self.feed = make_feed(self.connection, self.topics.events)
        self.output = OutputProbe(self.connection, self.topics.examples, live.partitions)

    def victims(self, *names: str) -> list[str]:
        """Those of the processes that a fault may hit."""
        return [name for name in names if name not in self._spared]

    def add_volume(self, name: str) -> bool:
        """Let a stream process have its state on a small disk of its own; whether that can be done here."""
        try:
            self._volumes[name] = TmpfsVolume(self.live.folder / f"volume-{name}")
        except RuntimeError:
            return False
        return True

    def volume(self, name: str) -> TmpfsVolume | None:
        """The small disk of a process, where it has one."""
        return self._volumes.get(name)

    def state_dir(self, name: str) -> Path:
        """The state folder of a stream process."""
        volume = self._volumes.get(name)
        return self.live.state_dir(name) if volume is None else volume.path / "state"

    @property
    def doctor_flags(self) -> list[str | Path]:
        """The flags with which an operator asks the doctor about the system."""
        volume = next(iter(self._volumes.values()), None)
        state_dir = self.live.folder if volume is None else volume.path / "state"
        system = ["--bootstrap", self.live.bootstrap, "--topic-prefix", self.live.prefix]
        system += ["--group-prefix", self.live.prefix, "--connect-timeout", "1"]
        return [*system, "--state-dir", state_dir, "--run-dir", self.run_dir]

    @property
    def run_dir(self) -> Path:
        """The run folder of the trainer."""
        return self.live.folder / "train"

    def start_watch(self, expected: ExpectedReport) -> ReportWatch:
        """Look, whenever time passes, for what the system says of a fault; it becomes `watch`."""
        self._watches.append(ReportWatch(self, expected))
        return self.watch

    def stop_watch(self, watch: ReportWatch) -> None:
        """Look for that no longer."""
        self._watches.remove(watch)
        watch.close()

    @property
    def watch(self) -> ReportWatch:
        """The watch of the newest fault."""
        return self._watches[-1]

    def look(self) -> None:
        """Look for what is said now, before anything else happens."""
        for watch in self._watches:
            watch.look()

    def start(self, name: str, *flags: str, **settings: str) -> None:
        """Start a process, or start it again."""
        common_flags = ("--connect-timeout", _CONNECT_TIMEOUT, "--metrics-port", str(self.ports[name]), *flags)
        if name == TRAINER:
            self.running[name] = self.live.start_train(
                "--checkpoint-interval", "1", *common_flags, crash=self._kill_file(name)
            )
            return
        snapshot_flags = ("--snapshots", self.snapshots, *FLAGS) if self.snapshots is not None else ()
        self.running[name] = self.live.start_stream(
            name,
            *common_flags,
            *snapshot_flags,
            crash=self._kill_file(name),
            state_dir=self.state_dir(name),
            **settings,
        )

    def spoil_gradient(self) -> None:
        """Make the next gradient of the trainer infinite."""
        self._kill_file(TRAINER).with_suffix(".gradient").touch()

    def schedule_kill(self, name: str, failpoint: str, hit: int) -> None:
        """Have a process killed at its n-th passing of a point from now on."""
        kill_file = self._kill_file(name)
        staging = kill_file.with_suffix(".new")
        staging.write_text(f"{failpoint} {hit}")
        staging.rename(kill_file)

    def cancel_kill(self, name: str) -> bool:
        """Take back `schedule_kill`; whether it was in time, or the process is about to be killed."""
        try:
            self._kill_file(name).unlink()
        except FileNotFoundError:
            return False
        return True

    def kill(self, name: str) -> None:
        """Kill -9."""
        self.live.kill(self.running.pop(name))

    def remove_if_ended(self, name: str) -> bool:
        """Whether a process has ended; if so, it is no longer among the running."""
        if self.running[name].poll() is None:
            return False
        del self.running[name]
        return True

    def any_logged(self, text: str) -> bool:
        """Whether a process that is running has written these words to stderr."""
        return any(text in self.live.stderr_of(process) for process in self.running.values())

    def run_for(self, seconds: float) -> None:
        """Let time pass, with events coming in."""
        self.wait_until(lambda: False, seconds)

    def wait_until(self, condition: Callable[[], bool], seconds: float, *, may_end: tuple[str, ...] = ()) -> bool:
        """Let time pass, with events coming in, until something is so; whether it is, in so many seconds.

        may_end: processes whose end is looked for by the condition.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() >= deadline:
                return False
            self.feed.tick()
            self.output.poll(_POLL_INTERVAL)
            for watch in self._watches:
                watch.poll()
            self._check_running(may_end)
        return True

    def wait_for_recovery(self, recovery: RecoveryTimer) -> None:
        """Wait until output flows again, or the log has all been sent and nothing more can come."""
        self.wait_until(lambda: recovery.seconds is not None, _RECOVERY_TIMEOUT)

    def start_recovery_timer(self, name: str) -> RecoveryTimer:
        """Begin to wait for the output that a process is needed for."""
        return (
            CheckpointRecovery(self.run_dir / "checkpoints") if name == TRAINER else self.output.start_recovery_timer()
        )

    def finish(self, on_progress: Callable[[str], None]) -> None:
        """Send the rest, stop everything as an operator would, and let it go through to the end."""
        self.feed.finish()
        self._check_running(())
        on_progress("stopping")
        self.stop_all()
        on_progress("to the end")
        self.run_to_end("--flush")

    def stop_all(self) -> None:
        """Stop everything as an operator would."""
        for process in self.running.values():
            self.live.request_stop(process)
        for process in self.running.values():
            self.live.wait_for_end(process)
        self.running.clear()

    def run_to_end(self, *flags: str) -> None:
        """Let all processes run to the end of what was sent."""
        for name in (*STREAMS, TRAINER):
            self.start(name, "--until-end", *flags)
        for process in self.running.values():
            self.live.wait_for_end(process)
        self.running.clear()

    def wait_for_end(self, name: str, code: int, seconds: float) -> str:
        """Wait for a process that must end with this exit code, and no longer count it as running; its stderr."""
        process = self.running[name]
        if not self.wait_until(lambda: process.poll() is not None, seconds, may_end=tuple(self.running)):
            raise AssertionError(f"{name} did not end in {seconds:.0f} s:\n{self.live.stderr_of(process)[-3000:]}")
        stderr = self.live.wait_for_end(process, code)
        del self.running[name]
        return stderr

    def close(self) -> None:
        """Leave nothing behind but files."""
        self.live.kill_all()
        for watch in self._watches:
            watch.close()
        self.feed.close()
        self.output.close()
        for volume in self._volumes.values():
            volume.close()

    def _kill_file(self, name: str) -> Path:
        return self.live.folder / f"orders-{name}"

    def _check_running(self, may_end: tuple[str, ...]) -> None:
        for name, process in self.running.items():
            if name not in may_end and process.poll() is not None:
                stderr = self.live.stderr_of(process)
                raise AssertionError(
                    f"{name} ended unexpectedly with exit code {process.returncode}:\n{stderr[-3000:]}"
                )
