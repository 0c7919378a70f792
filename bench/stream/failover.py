"""How long it takes until output flows again after `kill -9`, with the state folder kept and deleted."""

import time
from collections.abc import Sequence
from contextlib import closing
from shutil import rmtree
from typing import Any, Final

import msgspec

from bench.stream.broker import StableEnds, disk_megabytes
from bench.stream.competitors import PEERS, PeerRuns
from bench.stream.driver import Program
from bench.stream.follower import Follower
from bench.stream.oracle import checked
from bench.stream.runs import Bench, called, stream
from bench.stream.workload import PARTITIONS, Workload
from prectr.state.errors import PrectrError

SESSION_TIMEOUT: Final = 6
_KILL_AT: Final = 0.45
_LOOK_EVERY: Final = 0.01


class Takeover(msgspec.Struct, kw_only=True):
    """One kill. Seconds from there: first, to the first new committed output; every, until each
    partition that was not at its end had some.

    out: examples that were out when it was killed. state_mb: of the killed process. check: `ok`, or what is wrong.
    """

    name: str
    state: str
    out: int
    first: float
    every: float | None
    state_mb: float
    check: str


def takeover(bench: Bench, workload: Workload, processes: int, *, kept: bool) -> Takeover:
    """Run so many processes, kill the first of them at 45 % of the pages and start another at once.

    kept: whether that one finds the state of the killed one, or an empty folder.
    """
    name = called(processes)
    with bench.fresh("takeover") as (system, state):
        bench.say(f"{name}: loading")
        system.loaded(workload)
        timeout = ("--session-timeout", str(SESSION_TIMEOUT))
        bench.say(f"{name}, killed at {_KILL_AT:.0%}, state {'kept' if kept else 'deleted'}")
        with (
            closing(Follower(system)) as follower,
            closing(StableEnds(system.connection, system.topics.examples)) as ends,
        ):
            running = [stream(bench, system, state / str(number), workload, *timeout) for number in range(processes)]
            until = time.monotonic() + bench.limit(workload)
            while follower.examples < _KILL_AT * workload.pages:
                _watch(running, until)
            killed = running.pop(0)
            killed.crash()
            died = time.time()
            stable = ends.now() or [0] * PARTITIONS
            out = sum(arrival.examples for arrival in follower.arrivals)
            size = disk_megabytes(state / "0")
            if not kept:
                rmtree(state / "0")
            running.append(stream(bench, system, state / "0", workload, *timeout))
            while any(program.code is None for program in running):
                _watch(running, until)
            while follower.examples < workload.pages and time.monotonic() < until:
                time.sleep(_LOOK_EVERY)
            new = [arrival for arrival in follower.arrivals if arrival.offset >= stable[arrival.partition]]
        check = checked(system.connection, system.topics.examples, PARTITIONS, bench.due(workload))
    firsts: dict[int, float] = {}
    for arrival in new:
        firsts.setdefault(arrival.partition, arrival.at)
    if not firsts:
        raise PrectrError(
            f"{name}: {out:,} of {workload.pages:,} examples were out when a process was killed, and none came after: "
            "with more --pages there is time to kill it"
        )
    return Takeover(
        name=name,
        state="kept" if kept else "deleted",
        out=out,
        first=min(firsts.values()) - died,
        every=max(firsts.values()) - died,
        state_mb=size,
        check=check.verdict,
    )


def peer_takeover(others: PeerRuns, workload: Workload, topic: str, *, kept: bool) -> Takeover:
    """The same of Kafka Streams, with the same session timeout and a commit each 100 ms."""
    found: dict[str, Any] = others.killed(PEERS["ks"], workload, topic, wiped=not kept)
    return Takeover(
        name=PEERS["ks"].title,
        state="kept" if kept else "deleted",
        out=found["killed_at_pages"],
        first=found["first_new_output_s"],
        every=None,
        state_mb=found["state_mb_at_kill"],
        check=found["verdict"],
    )


def _watch(running: Sequence[Program], until: float) -> None:
    """Wait a moment; raise where a process has failed or it takes too long."""
    time.sleep(_LOOK_EVERY)
    for program in running:
        program.look()
        if program.code:
            said = program.log.read_text(encoding="utf-8", errors="replace")
            raise PrectrError(f"a stream process ended with exit code {program.code}:\n{said[-2000:]}")
    if time.monotonic() > until:
        raise PrectrError("the stream processes did not come to the end in time")
