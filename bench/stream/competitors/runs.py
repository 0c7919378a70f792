"""Other stream processors on the same log and broker, run and checked by their own driver, `run.py`."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any, Final, NamedTuple

import msgspec
from kafka import KafkaAdminClient

from bench.stream.driver import NO_CPU, Cpu, Program, Run, process_cpu
from bench.stream.runs import StreamBench
from bench.stream.workload import Workload, competitors_home
from prectr.state.errors import PrectrError

_LAUNCHER: Final = Path(__file__).with_name("launch.py")
_SAMPLE_EVERY: Final = 0.05
_MEBI: Final = (1 << 20) / 1e6
_ENVIRONMENT_PACKAGES: Final = {
    "quix": ("quixstreams==3.28.1", "confluent-kafka==2.12.2", "orjson", "numpy", "msgspec"),
    "faust": ("faust-streaming==0.15.3", "rocksdict", "msgspec"),
}
"""Packages by environment; the first also runs the competitors' generator, driver and check."""


class Competitor(NamedTuple):
    """One competitor.

    environment: virtual environment of a Python program. idle: a run ends after this many seconds without output.
    """

    name: str
    title: str
    script: str
    environment: str | None
    settings: Mapping[str, str]
    idle: int


COMPETITORS: Final = {
    "ks": Competitor(
        "ks",
        "Kafka Streams, exactly once",
        "kafka-streams/ks.sh",
        None,
        {"THREADS": "1", "GUARANTEE": "exactly_once_v2", "COMMIT_MS": "1000"},
        4,
    ),
    "quix": Competitor(
        "quix",
        "quixstreams, exactly once",
        "quix/peer.py",
        "quix",
        {"GUARANTEE": "exactly-once", "COMMIT_S": "5"},
        8,
    ),
    "faust": Competitor("faust", "Faust, at least once", "faust/peer.py", "faust", {}, 6),
}
FAILOVER_SETTINGS: Final = {"COMMIT_MS": "100", "SESSION_MS": "6000", "HEARTBEAT_MS": "1500"}
"""Additional settings of Kafka Streams in failover runs."""


class _CpuSample(NamedTuple):
    at: float
    cpu: Cpu


class CompetitorRuns:
    """Runs competitors; creates their environments in `folder` on first use."""

    def __init__(self, bench: StreamBench, folder: Path) -> None:
        self._bench = bench
        self._folder = folder
        self._home = competitors_home()
        self._count = 0

    def run(self, competitor: Competitor, workload: Workload, topic: str) -> Run:
        """Run a competitor once on a topic that holds the log."""
        self._bench.log_progress(competitor.title)
        run = Run(name=competitor.title, pages=workload.pages, events=workload.events)
        try:
            result, samples = self._run_script(competitor, workload, topic, [], {})
        except PrectrError as error:
            run.check = str(error)
            return run
        first = result["first"]
        at_first = _cpu_at(samples, first)
        at_last = _cpu_at(samples, first + result["wall_s"])
        share = at_last.user / at_last.total if at_last.total else 1.0
        run.cpu_user, run.cpu_system = result["cpu_s"] * share, result["cpu_s"] * (1 - share)
        run.startup_cpu = at_first.total
        run.working_cpu = max(0.0, result["cpu_s"] - at_first.total)
        run.wall, run.start, run.first_output = result["wall_s"], result["start_s"], result["first_out_s"]
        run.broker_cpu, run.peak_mb = result["broker_cpu_s"], result["peak_rss_mb"] * _MEBI
        run.state_mb, run.out_mb = result["state_mb"], result["out_mb"]
        run.other_load_cores = max(0.0, result["foreign_share"])
        run.check = _verdict(result)
        return run

    def run_with_kill(
        self, competitor: Competitor, workload: Workload, topic: str, *, delete_state: bool
    ) -> dict[str, Any]:
        """Kill a competitor at 45 % of the pages and restart it immediately; returns the result of `run.py`."""
        self._bench.log_progress(f"{competitor.title}, killed, state {'deleted' if delete_state else 'kept'}")
        flags = ["--kill", ".45", *(["--wipe"] if delete_state else [])]
        result, _ = self._run_script(competitor._replace(idle=8), workload, topic, flags, FAILOVER_SETTINGS)
        result["verdict"] = _verdict(result)
        return result

    @contextmanager
    def loaded(self, workload: Workload) -> Iterator[str]:
        """Load the log into a topic with the competitors' own loader; deleted at the end."""
        self._count += 1
        topic = f"competitor-events-{self._count}"
        self._bench.log_progress("loading for the competitors")
        command = [self._home / "gen.py", "load", workload.path, topic, "--bootstrap", self._bench.broker.address]
        self._wait_for_success(
            self._bench.programs.start([self._python("quix"), *map(str, command)], settings={}), topic
        )
        yield topic
        self._bench.connection.call_admin(lambda admin: _delete(admin, topic))

    def _run_script(
        self,
        competitor: Competitor,
        workload: Workload,
        topic: str,
        flags: Sequence[str],
        extra_settings: Mapping[str, str],
    ) -> tuple[dict[str, Any], list[_CpuSample]]:
        """Run a competitor with `run.py`; returns its result, and samples of the competitor's CPU time."""
        self._count += 1
        work = self._bench.folder / f"competitor-{self._count}"
        work.mkdir()
        settings = {
            **competitor.settings,
            **extra_settings,
            "BROKER_PID": str(self._bench.broker.pid),
            "BROKER_DATA": str(self._bench.broker.data),
            "PEERS_WORK": str(work),
            "TMPDIR": str(work),
            "JAVA_TOOL_OPTIONS": f"-Djava.io.tmpdir={work}",
        }
        runner = [self._python("quix"), "-P", _LAUNCHER, self._home, self._bench.broker.address, competitor.name]
        topic_flags = ["--events", workload.path, "--in", topic, "--idle", str(competitor.idle), *flags]
        limit = ["--timeout", f"{self._bench.timeout_of(workload):.0f}"]
        script = self._home / competitor.script
        command = [script] if competitor.environment is None else [self._python(competitor.environment), script]
        arguments = [str(part) for part in (*runner, *topic_flags, *limit, "--", *command)]
        program = self._bench.programs.start(arguments, settings=settings, folder=work)
        samples = []
        while program.poll():
            samples += [_CpuSample(time.time(), cpu) for child in _children(program.pid) if (cpu := process_cpu(child))]
            time.sleep(_SAMPLE_EVERY)
        self._wait_for_success(program, competitor.name)
        result: dict[str, Any] = msgspec.json.decode((work / "results.jsonl").read_bytes().splitlines()[-1])
        logs = b"".join(path.read_bytes() for path in (work / "logs").glob("*.log"))
        firsts = re.findall(rb"FIRST_EVENT (\d+)", logs)
        result["first"] = int(firsts[0]) / 1000 if firsts else program.started_at
        rmtree(work)
        return result, samples

    def _wait_for_success(self, program: Program, name: str) -> None:
        while program.poll():
            time.sleep(_SAMPLE_EVERY)
        if program.code != 0:
            log_text = program.log.read_text(encoding="utf-8", errors="replace")
            raise PrectrError(f"{name}: exit {program.code}: {' '.join(log_text[-500:].split())}")

    def _python(self, environment: str) -> str:
        """Interpreter of an environment, which is created on first use."""
        folder = self._folder / environment
        python = folder / "bin" / "python"
        if not (folder / "ready").exists():
            self._bench.log_progress(f"{environment}: creating its environment")
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            done = subprocess.run(
                [*install, *_ENVIRONMENT_PACKAGES[environment]], capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise PrectrError(f"{environment}: cannot install its packages:\n{done.stderr[-2000:]}")
            (folder / "ready").touch()
        return str(python)


def _delete(admin: KafkaAdminClient, topic: str) -> None:
    admin.delete_topics([topic])


def _children(pid: int) -> list[int]:
    """Running child processes of a process."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


def _cpu_at(samples: Sequence[_CpuSample], at: float) -> Cpu:
    """CPU time spent until a time."""
    return next((sample.cpu for sample in reversed(samples) if sample.at <= at), NO_CPU)


def _verdict(result: dict[str, Any]) -> str:
    if result["status"] != "ok":
        return str(result["status"])
    return "ok" if result["check"]["ok"] else str(result["check"])
