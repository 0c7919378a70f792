"""Failover time: from `kill -9` until output continues, with the state folder kept or deleted."""

import time
from collections.abc import Sequence
from contextlib import closing
from shutil import rmtree
from typing import Any, Final

import msgspec

from bench.stream.broker import StableEndOffsets, disk_megabytes
from bench.stream.competitors.runs import COMPETITORS, CompetitorRuns
from bench.stream.driver import Program
from bench.stream.follower import ExampleFollower
from bench.stream.oracle import check_topic
from bench.stream.runs import StreamBench, run_name, start_stream_process
from bench.stream.workload import PARTITIONS, Workload
from prectr.state.errors import PrectrError

SESSION_TIMEOUT_SECONDS: Final = 6
_KILL_AT: Final = 0.45
_POLL_INTERVAL: Final = 0.01


class Failover(msgspec.Struct, kw_only=True):
    """One kill and its recovery.

    examples_at_kill: examples emitted before the kill. first_output_seconds: from the kill to the first new committed
    output; all_partitions_seconds: until every partition that was not at its end had new output. state_mb: state of
    the killed process. check: `ok`, or the problem.
    """

    name: str
    state: str
    examples_at_kill: int
    first_output_seconds: float
    all_partitions_seconds: float | None
    state_mb: float
    check: str


def measure_failover(bench: StreamBench, workload: Workload, processes: int, *, state_kept: bool) -> Failover:
    """Run a number of processes, kill the first one at 45 % of the pages and start a replacement immediately.

    state_kept: whether the replacement has the state folder of the killed one, or an empty one.
    """
    name = run_name(processes)
    with bench.new_system("takeover") as (system, state):
        bench.log_progress(f"{name}: loading")
        system.load_workload(workload)
        timeout = ("--session-timeout", str(SESSION_TIMEOUT_SECONDS))
        bench.log_progress(f"{name}, killed at {_KILL_AT:.0%}, state {'kept' if state_kept else 'deleted'}")
        with (
            closing(ExampleFollower(system)) as follower,
            closing(StableEndOffsets(system.connection, system.topics.examples)) as ends,
        ):
            running = [
                start_stream_process(bench, system, state / str(number), workload, *timeout)
                for number in range(processes)
            ]
            deadline = time.monotonic() + bench.timeout_of(workload)
            while follower.examples < _KILL_AT * workload.pages:
                _poll_programs(running, deadline)
            killed = running.pop(0)
            killed.kill()
            killed_at = time.time()
            stable = ends.now() or [0] * PARTITIONS
            examples_at_kill = sum(arrival.examples for arrival in follower.arrivals)
            state_megabytes = disk_megabytes(state / "0")
            if not state_kept:
                rmtree(state / "0")
            running.append(start_stream_process(bench, system, state / "0", workload, *timeout))
            while any(program.code is None for program in running):
                _poll_programs(running, deadline)
            while follower.examples < workload.pages and time.monotonic() < deadline:
                time.sleep(_POLL_INTERVAL)
            new = [arrival for arrival in follower.arrivals if arrival.offset >= stable[arrival.partition]]
        check = check_topic(system.connection, system.topics.examples, PARTITIONS, bench.expected_output_of(workload))
    firsts: dict[int, float] = {}
    for arrival in new:
        firsts.setdefault(arrival.partition, arrival.at)
    if not firsts:
        raise PrectrError(
            f"{name}: {examples_at_kill:,} of {workload.pages:,} examples were emitted before the kill, and none"
            " after it: increase --pages"
        )
    return Failover(
        name=name,
        state="kept" if state_kept else "deleted",
        examples_at_kill=examples_at_kill,
        first_output_seconds=min(firsts.values()) - killed_at,
        all_partitions_seconds=max(firsts.values()) - killed_at,
        state_mb=state_megabytes,
        check=check.verdict,
    )


def measure_competitor_failover(
    competitors: CompetitorRuns, workload: Workload, topic: str, *, state_kept: bool
) -> Failover:
    """The same for Kafka Streams, with the same session timeout and a commit interval of 100 ms."""
    result: dict[str, Any] = competitors.run_with_kill(COMPETITORS["ks"], workload, topic, delete_state=not state_kept)
    return Failover(
        name=COMPETITORS["ks"].title,
        state="kept" if state_kept else "deleted",
        examples_at_kill=result["killed_at_pages"],
        first_output_seconds=result["first_new_output_s"],
        all_partitions_seconds=None,
        state_mb=result["state_mb_at_kill"],
        check=result["verdict"],
    )


def _poll_programs(running: Sequence[Program], deadline: float) -> None:
    """Wait briefly.

    Raises:
        PrectrError: a process has failed, or the deadline has passed.
    """
    time.sleep(_POLL_INTERVAL)
    for program in running:
        program.poll()
        if program.code:
            log_text = program.log.read_text(encoding="utf-8", errors="replace")
            raise PrectrError(f"a stream process ended with exit code {program.code}:\n{log_text[-2000:]}")
    if time.monotonic() > deadline:
        raise PrectrError("the stream processes did not finish in time")
