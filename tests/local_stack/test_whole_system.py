"""The whole system: a demo log is processed, Prometheus has every metric, and killed processes raise alerts."""

import json
import os
import signal
from pathlib import Path
from typing import Any

from prectr.ops.local_stack.processes import Process, process_leaders, processes_of
from tests.local_stack.machine import ROOT, Machine
from tests.local_stack.prometheus import Server, panel_queries, rules_of, shortened, sides, wait_for

PAGES = 20_000
SPEED = "30000"
"""The two weeks of the log in 40 s: long enough for snapshots to be taken while there is something to do."""
_RULES = ROOT / "ops" / "alerts" / "prectr.rules.yml"

MODEL = "wide-deep+"
"""Learns the log about as fast as it is loaded, which prectr-v2 would not."""

WITHOUT_DATA = {
    "training / Hard negatives per impression / A": "wide-deep+ makes none",
    "training / Margin violation rate / A": "as above",
}
"""Queries of panels that have nothing to show here, and why."""
ALERTS = "overview / Firing and pending alerts / A"
"""The panel that is empty while all is well, whether or not something was pending for a moment as all began."""


def test_every_query_has_data_quality_matches_the_report_and_dead_processes_raise_alerts(up: Machine) -> None:
    rules = up.folder / "alerts" / _RULES.name
    rules.parent.mkdir(parents=True)
    rules.write_text(shortened(_RULES.read_text(encoding="utf-8")), encoding="utf-8")
    done = up.make("up", UP_PAGES=str(PAGES), UP_SPEED=SPEED, UP_MODEL=MODEL)
    assert done.returncode == 0, done.stdout + done.stderr
    _scrape_often(up.folder)
    server = Server(up.parsed.prometheus_port)
    wait_for(lambda: server.now("up") and set(server.now("up").values()) == {1.0}, lambda: server.now("up"))
    assert sorted(dict(labels)["job"] for labels in server.now("up")) == ["monitor", "stream", "stream", "train"]

    report = _all_learned(up.folder, server)
    for job in ("train", "monitor"):
        for name in ("auc", "gauc"):
            query = f'prectr_{name}{{job="{job}",window="run",segment="all"}}'
            assert abs(server.one(query) - report[name]) < 1e-3, query

    _every_query_has_data(server, rules)
    _dead_processes_raise_alerts(up, server)
    assert server.has_data(panel_queries(ROOT / "ops" / "dashboards")[ALERTS])

    assert up.make("down").returncode == 0
    assert not up.is_up(), (processes_of(up.folder), up.commands(), up.taken())


def _scrape_often(folder: Path) -> None:
    """Have Prometheus ask, and judge its rules, more often than it does in earnest; each has 2 s to answer then."""
    config = folder / "prometheus" / "prometheus.yml"
    text = config.read_text()
    assert text.count("_interval: 5s") == 2
    config.write_text(text.replace("_interval: 5s", "_interval: 2s"))
    (prometheus,) = (process for process in processes_of(folder) if process.service == "prometheus")
    os.kill(prometheus.pid, signal.SIGHUP)


def _all_learned(folder: Path, server: Server) -> dict[str, Any]:
    """Wait until everything has been learned, and every process reports that; returns the trainer's report."""

    def report() -> dict[str, Any]:
        path = folder / "run" / "report.json"
        found: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {"pages": 0}
        return found

    def scored(job: str) -> float:
        return server.one(f'sum(prectr_scored_pages_total{{job="{job}",segment="all"}})')

    def loaded() -> bool:
        return "demo log: " in (folder / "up.log").read_text()

    # What is open stays so: the pages of the last two minutes, and the last batch.
    wait_for(
        lambda: loaded() and scored("train") == scored("monitor") == report()["pages"] >= PAGES - 200,
        lambda: (scored("train"), scored("monitor"), report()["pages"], (folder / "up.log").read_text()[-2000:]),
    )
    return report()


def _every_query_has_data(server: Server, rules: Path) -> None:
    queries = panel_queries(ROOT / "ops" / "dashboards")
    assert len(queries) > 60
    empty = {name: query for name, query in queries.items() if name != ALERTS and not server.has_data(query)}
    assert empty.keys() == WITHOUT_DATA.keys(), empty
    for rule in rules_of(rules):
        # A recording by the name that it is recorded under; an alert, which is silent while all is well, by its sides.
        expressions = sides(rule.expression) if rule.alert else [rule.expression, rule.name]
        for query in expressions:
            assert server.has_data(query), (rule.name, query)
    health = {rule["name"]: rule["health"] for group in server.get("rules")["groups"] for rule in group["rules"]}
    assert health == dict.fromkeys((rule.name for rule in rules_of(_RULES)), "ok")


def _dead_processes_raise_alerts(up: Machine, server: Server) -> None:
    """Kill a stream worker and the trainer, prevent their restart for some time, then allow it."""
    targets = up.parsed.targets
    dead = {("PrectrStreamDown", targets["stream"][0]), ("PrectrTrainerDown", targets["train"][0])}

    def alerts(*states: str) -> set[tuple[str, str]]:
        return {(name, instance) for name, instance, state in server.alerts() if state in states and "Down" in name}

    wait_for(lambda: alerts("pending", "firing") == set(), server.alerts)
    supervisor = _supervisor(up.folder)
    os.kill(supervisor.pid, signal.SIGSTOP)
    doomed = [each for each in _children(supervisor) if _name(each) in ("stream-1", "train")]
    assert len(doomed) == 2
    for process in doomed:
        os.kill(process, signal.SIGKILL)
    wait_for(lambda: alerts("firing") == dead, server.alerts)
    # Its tasks are with the other one, or they would be missing: no alert on that for long.
    wait_for(lambda: "PrectrTaskMissing" not in {name for name, _, _ in server.alerts()}, server.alerts)
    wait_for(lambda: alerts("pending", "firing") == dead, server.alerts)

    os.kill(supervisor.pid, signal.SIGCONT)
    wait_for(lambda: alerts("pending", "firing") == set(), lambda: (server.alerts(), server.now("up")))
    assert set(server.now("up").values()) == {1.0}


def _supervisor(folder: Path) -> Process:
    (found,) = (process for process in process_leaders(processes_of(folder)) if process.service == "system")
    return found


def _children(process: Process) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def _name(pid: int) -> str:
    """stream-1, stream-2, train or monitor: the last part of its state folder, or its command."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    for word in words:
        if word.startswith("--state-dir="):
            return Path(word).name
    return next(word for word in words if word in ("train", "monitor"))
