"""Other stream processors on the same log and broker, run and checked by the peers' own `run.py`."""

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

from bench.stream.driver import NO_CPU, Cpu, Program, Run, cpu_of
from bench.stream.runs import Bench
from bench.stream.workload import Workload, peers_home
from prectr.state.errors import PrectrError

_LAUNCHER: Final = Path(__file__).with_name("competitor_launch.py")
_SAMPLE_EVERY: Final = 0.05
_MEBI: Final = (1 << 20) / 1e6
_ENVIRONMENTS: Final = {
    "quix": ("quixstreams==3.28.1", "confluent-kafka==2.12.2", "orjson", "numpy", "msgspec"),
    "faust": ("faust-streaming==0.15.3", "rocksdict", "msgspec"),
}
"""Packages by environment; the first has the peers' generator, driver and check, too."""


class Peer(NamedTuple):
    """One of them. environment: what it runs in, if it is Python. idle: seconds without output that end a run."""

    name: str
    title: str
    script: str
    environment: str | None
    settings: Mapping[str, str]
    idle: int


PEERS: Final = {
    "ks": Peer(
        "ks",
        "Kafka Streams, exactly once",
        "kafka-streams/ks.sh",
        None,
        {"THREADS": "1", "GUARANTEE": "exactly_once_v2", "COMMIT_MS": "1000"},
        4,
    ),
    "quix": Peer(
        "quix",
        "quixstreams, exactly once",
        "quix/peer.py",
        "quix",
        {"GUARANTEE": "exactly-once", "COMMIT_S": "5"},
        8,
    ),
    "faust": Peer("faust", "Faust, at least once", "faust/peer.py", "faust", {}, 6),
}
KILLED: Final = {"COMMIT_MS": "100", "SESSION_MS": "6000", "HEARTBEAT_MS": "1500"}
"""Settings of Kafka Streams where it is killed, besides its own."""


class _Sample(NamedTuple):
    at: float
    cpu: Cpu


class PeerRuns:
    """Runs peers; makes what they need on first use, in `folder`."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self._bench = bench
        self._folder = folder
        self._home = peers_home()
        self._made = 0

    def run(self, peer: Peer, workload: Workload, topic: str) -> Run:
        """Run a peer once on a topic that holds the log."""
        self._bench.say(peer.title)
        run = Run(name=peer.title, pages=workload.pages, events=workload.events)
        try:
            found, samples = self._through(peer, workload, topic, [], {})
        except PrectrError as error:
            run.check = str(error)
            return run
        first = found["first"]
        at_first = _before(samples, first)
        at_last = _before(samples, first + found["wall_s"])
        share = at_last.user / at_last.total if at_last.total else 1.0
        run.cpu_user, run.cpu_system = found["cpu_s"] * share, found["cpu_s"] * (1 - share)
        run.startup_cpu = at_first.total
        run.working_cpu = max(0.0, found["cpu_s"] - at_first.total)
        run.wall, run.start, run.first_output = found["wall_s"], found["start_s"], found["first_out_s"]
        run.broker_cpu, run.peak_mb = found["broker_cpu_s"], found["peak_rss_mb"] * _MEBI
        run.state_mb, run.out_mb = found["state_mb"], found["out_mb"]
        run.foreign = max(0.0, found["foreign_share"])
        run.check = _verdict(found)
        return run

    def killed(self, peer: Peer, workload: Workload, topic: str, *, wiped: bool) -> dict[str, Any]:
        """Kill a peer at 45 % of the pages and start it again at once; what `run.py` says of it."""
        self._bench.say(f"{peer.title}, killed, state {'deleted' if wiped else 'kept'}")
        flags = ["--kill", ".45", *(["--wipe"] if wiped else [])]
        found, _ = self._through(peer._replace(idle=8), workload, topic, flags, KILLED)
        found["verdict"] = _verdict(found)
        return found

    @contextmanager
    def loaded(self, workload: Workload) -> Iterator[str]:
        """A topic with the log, as the peers load it; deleted at the end."""
        self._made += 1
        topic = f"peers-events-{self._made}"
        self._bench.say("loading for the peers")
        command = [self._home / "gen.py", "load", workload.path, topic, "--bootstrap", self._bench.broker.address]
        self._done(self._bench.programs.start([self._python("quix"), *map(str, command)], settings={}), topic)
        yield topic
        self._bench.connection.ask(lambda admin: _delete(admin, topic))

    def _through(
        self, peer: Peer, workload: Workload, topic: str, flags: Sequence[str], more: Mapping[str, str]
    ) -> tuple[dict[str, Any], list[_Sample]]:
        """Run a peer with `run.py`; what it says, and what the peer had spent at times meanwhile."""
        self._made += 1
        work = self._bench.folder / f"peers-{self._made}"
        work.mkdir()
        settings = {
            **peer.settings,
            **more,
            "BROKER_PID": str(self._bench.broker.pid),
            "BROKER_DATA": str(self._bench.broker.data),
            "PEERS_WORK": str(work),
            "TMPDIR": str(work),
            "JAVA_TOOL_OPTIONS": f"-Djava.io.tmpdir={work}",
        }
        runner = [self._python("quix"), "-P", _LAUNCHER, self._home, self._bench.broker.address, peer.name]
        where = ["--events", workload.path, "--in", topic, "--idle", str(peer.idle), *flags]
        limit = ["--timeout", f"{self._bench.limit(workload):.0f}"]
        script = self._home / peer.script
        command = [script] if peer.environment is None else [self._python(peer.environment), script]
        whole = [str(part) for part in (*runner, *where, *limit, "--", *command)]
        program = self._bench.programs.start(whole, settings=settings, folder=work)
        samples = []
        while program.look():
            samples += [_Sample(time.time(), cpu) for child in _children(program.pid) if (cpu := cpu_of(child))]
            time.sleep(_SAMPLE_EVERY)
        self._done(program, peer.name)
        found: dict[str, Any] = msgspec.json.decode((work / "results.jsonl").read_bytes().splitlines()[-1])
        said = b"".join(path.read_bytes() for path in (work / "logs").glob("*.log"))
        firsts = re.findall(rb"FIRST_EVENT (\d+)", said)
        found["first"] = int(firsts[0]) / 1000 if firsts else program.begun
        rmtree(work)
        return found, samples

    def _done(self, program: Program, name: str) -> None:
        while program.look():
            time.sleep(_SAMPLE_EVERY)
        if program.code != 0:
            said = program.log.read_text(encoding="utf-8", errors="replace")
            raise PrectrError(f"{name}: exit {program.code}: {' '.join(said[-500:].split())}")

    def _python(self, environment: str) -> str:
        """The interpreter of an environment, which is made if it is not there."""
        folder = self._folder / environment
        python = folder / "bin" / "python"
        if not (folder / "ready").exists():
            self._bench.say(f"{environment}: making its environment")
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
            install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            done = subprocess.run([*install, *_ENVIRONMENTS[environment]], capture_output=True, text=True, check=False)
            if done.returncode:
                raise PrectrError(f"{environment}: its packages cannot be installed:\n{done.stderr[-2000:]}")
            (folder / "ready").touch()
        return str(python)


def _delete(admin: KafkaAdminClient, topic: str) -> None:
    admin.delete_topics([topic])


def _children(pid: int) -> list[int]:
    """Processes that a process has started and that still run."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


def _before(samples: Sequence[_Sample], at: float) -> Cpu:
    """What had been spent at a time."""
    return next((sample.cpu for sample in reversed(samples) if sample.at <= at), NO_CPU)


def _verdict(found: dict[str, Any]) -> str:
    if found["status"] != "ok":
        return str(found["status"])
    return "ok" if found["check"]["ok"] else str(found["check"])
