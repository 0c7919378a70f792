"""The soak run: calibration, an hour of faults, and the verdict."""

import random
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from testkit.command import RunningCommand, environment
from testkit.kafka_broker import Broker, free_ports
from tests.faults.injection.registry import INJECTORS
from tests.faults.reports.expected_reports import EXPECTED_REPORTS
from tests.faults.reports.watch import SAID_WITHIN, scrape
from tests.faults.soak.constant_feed import ConstantFeed
from tests.faults.soak.samples import ProcessSampler, Sample
from tests.faults.system import STREAMS, TRAINER, LiveSystem
from tests.faults.verdict import find_digest_differences
from tests.kafka.live import IN_ORDER, MODEL, Live, result_of
from tests.kafka.monitoring import MonitorProcess

REPEATABLE_KINDS: Final = (
    "kill-stream",
    "kill-stream-at-point",
    "kill-broker",
    "zombie",
    "lose-state",
    "third-process",
    "kill-in-snapshot",
    "kill-in-restore",
    "truncated-snapshot",
    "broker-away-at-start",
    "wrong-settings",
    "slow-clients",
)
"""They hit the broker and stream process 2; stream process 1, trainer and monitor live from beginning to end."""
LASTING: Final = ("stream 1", "trainer", "monitor")
PARTITIONS: Final = 4
_SPARED: Final = frozenset({STREAMS[0], TRAINER})
_CALIBRATION_PAGES: Final = 20_000
_DAYS_OF_LOG: Final = 2.0
_LOG_RESERVE: Final = 1.1
_PROCESS_TIMEOUT: Final = 4 * 3_600.0
"""Seconds that a process may take to end: the replay of an hour takes about as long on two busy cores."""
_NAMES: Final = {"1": "stream 1", "2": "stream 2", "3": "stream 3", TRAINER: "trainer"}


class SoakFault(msgspec.Struct):
    """A fault. Seconds: from the start of the run; until all was said, and until output flowed again."""

    kind: str
    at: float
    description: str
    said_after: float | None
    recovered_after: float | None


class SoakResult(msgspec.Struct):
    """The run.

    capacity, rate: events per second. seconds: of live running. lags: seconds since the start, and records of
    training-examples that the trainer had not read.
    """

    minutes: float
    capacity: float
    rate: float
    seconds: float
    events: int
    faults: list[SoakFault]
    samples: list[Sample]
    lags: list[tuple[float, float]]
    problems: list[str]


def measure_capacity(broker: Broker, folder: Path, log: Path, events: int) -> float:
    """Events per second of two stream processes and a trainer that work through a log, in the middle of it."""
    live = Live(broker.address, f"soak-calibration-{time.time_ns()}.", folder, PARTITIONS, _PROCESS_TIMEOUT)
    folder.mkdir()
    live.create()
    live.load(log)
    (port,) = free_ports(1)
    processes = [live.start_stream(name, "--until-end", "--flush") for name in STREAMS]
    trainer = live.start_train("--until-end", "--flush", "--metrics-port", str(port))
    progress: list[tuple[float, float]] = []
    try:
        while trainer.poll() is None:
            pages = sum(value for name, value in scrape(port) or () if name == "prectr_trained_pages_total")
            if not progress or pages > progress[-1][1]:
                progress.append((time.monotonic(), pages))
            time.sleep(0.2)
        for process in (*processes, trainer):
            live.wait_for_end(process)
    finally:
        live.kill_all()
        live.delete_topics()
        shutil.rmtree(folder)
    total = progress[-1][1]
    begin = next(each for each in progress if each[1] >= 0.2 * total)
    end = next(each for each in progress if each[1] >= 0.8 * total)
    if end[0] <= begin[0]:
        raise AssertionError(f"the log of {events} events is too short to measure the capacity")
    return (end[1] - begin[1]) / total * events / (end[0] - begin[0])


def make_log(folder: Path, pages: int, seed: int) -> Path:
    """A simulated log of so many pages."""
    log = folder / f"soak-{pages}.jsonl"
    command: list[str | Path] = [
        "simulate",
        "--pages",
        str(pages),
        "--days",
        str(_DAYS_OF_LOG),
        "--seed",
        str(seed),
        "--out",
        log,
    ]
    _run(command, folder / "simulate.log")
    return log


def _run(command: list[str | Path], log: Path) -> None:
    """Run a command that may take hours. log: for its stderr."""
    process = RunningCommand(command, stdout=None, stderr=log, environ=environment())
    try:
        assert process.wait(_PROCESS_TIMEOUT) == 0, log.read_text()[-3000:]
    finally:
        process.kill()


def count_lines(log: Path) -> int:
    """Events of a log."""
    with log.open("rb") as lines:
        return sum(1 for _ in lines)


class Soak:
    """A live system of two stream processes, trainer and monitor under a constant load, hit once a minute."""

    def __init__(self, broker: Broker, folder: Path, seed: int, report: Callable[[str], None]) -> None:
        self._broker, self._folder, self._seed, self._report = broker, folder, seed, report
        self._rng = random.Random(f"soak/{seed}")

    def run(self, minutes: float, rate: float | None = None) -> SoakResult:
        """Calibrate, run, and compare with the replay. rate: events per second; None: half the capacity."""
        calibration = make_log(self._folder, _CALIBRATION_PAGES, self._seed)
        events = count_lines(calibration)
        capacity = measure_capacity(self._broker, self._folder / "calibration", calibration, events)
        rate = capacity / 2 if rate is None else rate
        self._report(f"capacity {capacity:,.0f} events/s, load {rate:,.0f} events/s")
        pages = round(minutes * 60 * rate * _LOG_RESERVE * _CALIBRATION_PAGES / events) + 1_000
        log = make_log(self._folder, pages, self._seed + 1)
        self._report(f"log of {pages:,} pages")
        prefix = f"soak-{time.time_ns()}."
        live = Live(self._broker.address, prefix, self._folder / "live", PARTITIONS, _PROCESS_TIMEOUT)
        live.folder.mkdir()
        sent = self._folder / "sent.jsonl"
        feed = partial(ConstantFeed, log=log, sent=sent, partitions=PARTITIONS, rate=rate)
        result = SoakResult(minutes, capacity, rate, 0.0, 0, [], [], [], [])
        try:
            self._live_part(result, live, feed)
            log.unlink()
            result.problems += self._compare(live, sent)
            result.events = count_lines(sent)
        finally:
            live.kill_all()
            live.delete_topics()
        return result

    def _live_part(self, result: SoakResult, live: Live, feed: Callable[..., ConstantFeed]) -> None:
        system = LiveSystem(self._broker, live, self._rng, feed, snapshots=True, spared=_SPARED)
        monitor = MonitorProcess(live)
        sampler = None
        try:
            for name in (*STREAMS, TRAINER):
                system.start(name)
            monitor.start()
            system.wait_for_recovery(system.start_recovery_timer(STREAMS[0]))
            sampler = ProcessSampler(lambda: _pids(system, monitor, self._broker), lambda: _lag(system))
            started = time.monotonic()
            self._inject(result, system, started)
            result.seconds = time.monotonic() - started
            sampler.close()
            result.samples, result.lags = sampler.samples, sampler.lags
            live.request_stop(monitor.process)
            monitor.wait_for_end()
            system.finish(self._report)
        finally:
            if sampler is not None:
                sampler.close()
            system.close()

    def _inject(self, result: SoakResult, system: LiveSystem, started: float) -> None:
        """A fault at every full minute, each kind once before any comes again."""
        drawn: list[str] = []
        for minute in range(1, int(result.minutes) + 1):
            next_at = started + 60 * (minute - 1) + 30
            system.run_for(max(0.0, next_at - time.monotonic()))
            drawn = drawn or self._rng.sample(REPEATABLE_KINDS, len(REPEATABLE_KINDS))
            kind = drawn.pop()
            at = time.monotonic() - started
            watch = system.start_watch(EXPECTED_REPORTS[kind])
            done = INJECTORS[kind](system)
            system.wait_for_recovery(done.recovery)
            system.wait_until(lambda watch=watch: not watch.missing, SAID_WITHIN)
            missing, said_after = watch.missing, watch.seconds
            system.stop_watch(watch)
            result.problems += [f"{kind} at {at:.0f} s: nothing was said of it in {place}" for place in missing]
            if done.recovery.seconds is None:
                result.problems.append(f"{kind} at {at:.0f} s: no output came again")
            fault = SoakFault(kind, at, done.description, said_after, done.recovery.seconds)
            result.faults.append(fault)
            self._report(f"{at:,.0f} s: {done.description}")
        system.run_for(max(0.0, started + 60 * result.minutes - time.monotonic()))

    def _compare(self, live: Live, sent: Path) -> list[str]:
        """How the live result differs from the replay of what was sent, in words."""
        run_dir = self._folder / "replay"
        flags: list[str | Path] = ["--model", MODEL, "--partitions", str(PARTITIONS), "--run-dir", run_dir, *IN_ORDER]
        log = self._folder / "replay.log"
        _run(["replay", sent, *flags], log)
        report = msgspec.json.decode((run_dir / "report.json").read_bytes())
        return find_digest_differences(live, result_of(live.read_report(), None), result_of(report, None))


def _lag(system: LiveSystem) -> float | None:
    samples = scrape(system.ports[TRAINER])
    return None if samples is None else sum(value for name, value in samples if name == "prectr_consumer_lag_records")


def _pids(system: LiveSystem, monitor: MonitorProcess, broker: Broker) -> dict[str, int]:
    found = {_NAMES[name]: process.pid for name, process in dict(system.running).items()}
    if monitor.process is not None:
        found["monitor"] = monitor.process.pid
    if broker.pid is not None:
        found["broker"] = broker.pid
    return found
