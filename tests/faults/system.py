"""The whole live system of one scenario: two stream processes and a trainer, kept at work, watched, and restarted."""

import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.topics import Topics
from testkit.kafka_broker import Broker
from tests.faults.feed import Feed
from tests.faults.output_probe import CheckpointAgain, Output, Recovery
from tests.faults.snapshots import FLAGS
from tests.faults.tmpfs import Volume
from tests.kafka.live import SESSION_TIMEOUT, Live

STREAMS: Final = ("1", "2")
TRAINER: Final = "train"
SESSION_SECONDS: Final = float(SESSION_TIMEOUT)
_LOOK_EVERY: Final = 0.05
_RECOVERY_LIMIT: Final = 60.0
_BROKER_WAIT: Final = "30"
"""Seconds that a process goes on trying while the broker does not answer at start."""


class System:
    """Processes by name: `1`, `2` and, for a while, `3` are stream processes, `train` is the trainer.

    Each is started by the command that it was first started by, as its operator would. A process that ends by
    itself, when no fault has made it, is a failure.
    """

    def __init__(self, broker: Broker, live: Live, log: Path, rng: random.Random, *, snapshots: bool) -> None:
        self.broker = broker
        self.live = live
        self.rng = rng
        self.snapshots = live.folder / "snapshots" if snapshots else None
        self.running: dict[str, subprocess.Popen[str]] = {}
        self.begun = time.monotonic()
        self._volumes: dict[str, Volume] = {}
        live.create()
        # By default, the client waits for up to 30 s before it connects again, and nothing would come in meanwhile.
        connection = Connection(broker.address, {"reconnect_backoff_max_ms": 200}, wait=30)
        topics = Topics(live.prefix)
        self.feed = Feed(connection, topics.events, log, live.partitions)
        self.output = Output(connection, topics.examples, live.partitions)

    def add_volume(self, name: str) -> bool:
        """Let a stream process have its state on a small disk of its own; whether that can be done here."""
        try:
            self._volumes[name] = Volume(self.live.folder / f"volume-{name}")
        except RuntimeError:
            return False
        return True

    def volume(self, name: str) -> Volume | None:
        """The small disk of a process, where it has one."""
        return self._volumes.get(name)

    def state(self, name: str) -> Path:
        """The state folder of a stream process."""
        volume = self._volumes.get(name)
        return self.live.state(name) if volume is None else volume.path / "state"

    def start(self, name: str, *flags: str) -> None:
        """Start a process, or start it again."""
        given = ("--wait", _BROKER_WAIT, *flags)
        if name == TRAINER:
            self.running[name] = self.live.start_train("--cut-every", "1", *given, crash=self._orders(name))
            return
        stored = ("--snapshots", self.snapshots, *FLAGS) if self.snapshots is not None else ()
        self.running[name] = self.live.start_stream(
            name, *given, *stored, crash=self._orders(name), state_dir=self.state(name)
        )

    def arm(self, name: str, point: str, number: int) -> None:
        """Have a process killed at its n-th passing of a point from now on."""
        orders = self._orders(name)
        aside = orders.with_suffix(".new")
        aside.write_text(f"{point} {number}")
        aside.rename(orders)

    def disarm(self, name: str) -> bool:
        """Take back `arm`; whether it was in time, or the process is about to be killed."""
        try:
            self._orders(name).unlink()
        except FileNotFoundError:
            return False
        return True

    def kill(self, name: str) -> None:
        """Kill -9."""
        self.live.killed(self.running.pop(name))

    def died(self, name: str) -> bool:
        """Whether a process has ended; if so, it is no longer among the running."""
        if self.running[name].poll() is None:
            return False
        del self.running[name]
        return True

    def heard(self, words: str) -> bool:
        """Whether a process that is running has written these words to stderr."""
        return any(words in self.live.said(process) for process in self.running.values())

    def run_for(self, seconds: float) -> None:
        """Let time pass, with events coming in."""
        self.until(lambda: False, seconds)

    def until(self, condition: Callable[[], bool], seconds: float, *, may_end: tuple[str, ...] = ()) -> bool:
        """Let time pass, with events coming in, until something is so; whether it is, in so many seconds.

        may_end: processes whose end is looked for by the condition.
        """
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() >= end:
                return False
            self.feed.tick()
            self.output.poll(_LOOK_EVERY)
            self._all_run(may_end)
        return True

    def recovered(self, recovery: Recovery) -> None:
        """Wait until output flows again, or the log has all been sent and nothing more can come."""
        self.until(lambda: recovery.seconds is not None, _RECOVERY_LIMIT)

    def again(self, name: str) -> Recovery:
        """Begin to wait for the output that a process is needed for."""
        return CheckpointAgain(self.live.folder / "train" / "checkpoints") if name == TRAINER else self.output.again()

    def finish(self, shown: Callable[[str], None]) -> None:
        """Send the rest, stop everything as an operator would, and let it go through to the end."""
        self.feed.finish()
        self._all_run(())
        shown("stopping")
        for process in self.running.values():
            self.live.ask_to_stop(process)
        for process in self.running.values():
            self.live.ended(process)
        shown("to the end")
        for name in (*STREAMS, TRAINER):
            self.start(name, "--until-end", "--flush")
        for process in self.running.values():
            self.live.ended(process)
        self.running.clear()

    def close(self) -> None:
        """Leave nothing behind but files."""
        self.live.kill_all()
        self.feed.close()
        self.output.close()
        for volume in self._volumes.values():
            volume.close()

    def _orders(self, name: str) -> Path:
        return self.live.folder / f"orders-{name}"

    def _all_run(self, may_end: tuple[str, ...]) -> None:
        for name, process in self.running.items():
            if name not in may_end and process.poll() is not None:
                said = self.live.said(process)
                raise AssertionError(f"{name} ended by itself with exit code {process.returncode}:\n{said[-3000:]}")
