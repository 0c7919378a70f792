"""Starting over, as docs/operations.md says, where a system cannot go on with its log; and what it had put out."""

from pathlib import Path

from testkit.command import write_log
from tests.faults.system import LiveSystem
from tests.kafka.live import Live, RunResult, replay_log


def replay_of_sent(system: LiveSystem) -> RunResult:
    """The embedded replay of the events that were sent, without those whose pages are still open."""
    folder = system.live.folder / "sent"
    folder.mkdir()
    log = write_log(folder / "sent.jsonl", system.feed.sent_lines)
    return replay_log(folder, log, flush=False, partitions=system.live.partitions)


def check_put_out(live: Live, expected: RunResult) -> list[str]:
    """How examples, digests and outcomes up to the end of what was sent differ from the replay, in words."""
    actual = live.read_result()
    return [
        f"up to the end of what was sent, the {name} are not the replay's"
        for name in RunResult._fields
        if getattr(actual, name) != getattr(expected, name)
    ]


def start_over(live: Live, log: Path) -> Live:
    """Load the whole log again under other prefixes and folders, and let a new system go through it."""
    folder = live.folder / "again"
    folder.mkdir()
    again = Live(live.bootstrap, f"{live.prefix}again.", folder, partitions=live.partitions, timeout=live.timeout)
    again.create()
    again.load(log)
    again.stream(2, "--flush")
    again.wait_for_end(again.start_train("--until-end", "--flush"))
    return again
