"""Some thousand mutated events through the live system; `python -m bench.mutations` sends a million."""

from pathlib import Path

from bench.mutations.comparison import compare
from bench.mutations.generator.event_stream import EventStream
from bench.mutations.generator.hypothesis_edits import edit_pool
from bench.mutations.live_run import LiveRun
from bench.mutations.system import System
from bench.stream.driver import ProgramGroup
from testkit.kafka_broker import Broker
from tests.kafka.live import Live


def test_every_mutated_event_has_one_outcome(broker: Broker, live: Live, tmp_path: Path) -> None:
    system, programs = System(broker.address, live.prefix), ProgramGroup(tmp_path)
    run = LiveRun(system, programs, tmp_path, EventStream(7, edit_pool(300, 7)), lambda done, note: None)
    try:
        result = run.run_to_end(4_000, seed=7)
    finally:
        programs.kill_all()
    checks, topics, _ = compare(system, run, tmp_path)
    assert {each.name: (each.expected, each.found) for each in checks if not each.holds} == {}
    assert result.report["outcomes"]["clicks"]["joined"] > 50
    assert len(topics.dead_letters.reasons) > 5
