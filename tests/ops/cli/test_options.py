"""Option groups: commands that share options have them alike, and `prectr run` passes them on to its processes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prectr.ops.cli.main import COMMANDS, load_command, main
from prectr.ops.live.run import LiveRun, make_processes, write_targets


def options_of(name: str) -> dict[str, Any]:
    return {option.name: option for option in load_command(name).params}


@pytest.fixture
def live_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Call `prectr run` with flags; returns what it would start, without a broker."""
    started: list[LiveRun] = []
    monkeypatch.setattr("prectr.ops.live.run.run_live", started.append)

    def call(*flags: str) -> LiveRun:
        arguments = ["prectr", "run", "--bootstrap", "b:1", "--run-dir", str(tmp_path / "live"), *flags]
        monkeypatch.setattr("sys.argv", arguments)
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return started.pop()

    return call


def test_options_of_the_same_name_have_the_same_help_in_every_command() -> None:
    own = {"partitions", "snapshots", "metrics_port", "state_dir", "run_dir", "seed", "json", "help", "out", "reason"}
    # A stream worker closes pages, a trainer trains the last batch; doctor judges snapshots that others take.
    own |= {"flush", "snapshot_interval"}
    seen: dict[str, set[str]] = {}
    for command in ("stream", "train", "run", "replay", "monitor", "doctor", "load", "examples"):
        for name, option in options_of(command).items():
            if name not in own:
                seen.setdefault(name, set()).add(option.help)
    shared = {"bootstrap", "topic_prefix", "group_prefix", "client_config", "connect_timeout", "until_end"}
    assert shared <= seen.keys()
    assert [name for name, texts in seen.items() if len(texts) > 1 and name != "files"] == []


def test_run_passes_to_each_process_the_options_that_it_has(live_run: Any) -> None:
    run = live_run(
        *("--topic-prefix", "t.", "--group-prefix", "g.", "--model", "lr,dnn", "--batch-span", "1d"),
        *("--snapshots", "s3://b", "--session-timeout", "3", "--checkpoint-interval", "0", "--until-end", "--flush"),
    )
    common = {"--bootstrap=b:1", "--topic-prefix=t.", "--connect-timeout=5.0"}
    assert set(run.stream_flags) == common | {
        "--group-prefix=g.",
        "--until-end",
        "--flush",
        "--snapshots=s3://b",
        "--snapshot-interval=60.0",
        "--session-timeout=3.0",
        "--idle-timeout=60.0",
    }
    assert set(run.train_flags) == common | {
        "--model=lr,dnn",
        "--batch-span=1d",
        "--checkpoint-interval=0.0",
        "--until-end",
        "--flush",
    }
    assert run.monitor_flags is None
    assert run.until_end


def test_the_processes_of_run_are_valid_commands_with_folders_and_ports_of_their_own(live_run: Any) -> None:
    run = live_run("--stream-workers", "2", "--metrics-port", "9401", "--monitor-port", "9480")
    ports, folders = {}, set()
    for process in make_processes(run):
        words = process._command[3:]
        name = next(word for word in words if word in COMMANDS)
        flags = words[words.index(name) + 1 :]
        values = load_command(name).make_context(name, list(flags)).params
        ports[process.name] = values["metrics_port"]
        folders.add(values.get("state_dir") or values.get("data_dir") or values.get("run_dir"))
        assert values["bootstrap"] == "b:1"
        if name == "monitor":
            assert values["port"] == 9480
    assert ports == {"train": 9401, "monitor": 9402, "stream-1": 9403, "stream-2": 9404}
    assert len(folders) == 4


def test_one_more_stream_worker_moves_no_port_and_is_a_target_of_prometheus(live_run: Any, tmp_path: Path) -> None:
    targets = {}
    for workers in ("2", "3"):
        run = replace(
            live_run("--stream-workers", workers, "--metrics-port", "9401", "--monitor-port", "9480"), run_dir=tmp_path
        )
        path = write_targets(run, make_processes(run))
        assert path == tmp_path / "targets.json"
        targets[workers] = {group["labels"]["job"]: group["targets"] for group in json.loads(path.read_bytes())}
    assert targets["2"] == {
        "train": ["127.0.0.1:9401"],
        "monitor": ["127.0.0.1:9402"],
        "stream": ["127.0.0.1:9403", "127.0.0.1:9404"],
    }
    assert targets["3"] == targets["2"] | {"stream": [*targets["2"]["stream"], "127.0.0.1:9405"]}
