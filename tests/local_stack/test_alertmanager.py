"""The example for Alertmanager, in a real one: who is told what, and which alerts are silenced by their cause."""

import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import yaml

from testkit.kafka_broker import free_ports
from tests.kit.observe.promql import alerts
from tests.local_stack.machine import ROOT
from tests.local_stack.tools import needed

EXAMPLE = ROOT / "ops" / "alerts" / "alertmanager.example.yml"
CONFIG: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
SEVERITIES = {alert["alert"]: alert["labels"]["severity"] for alert in alerts()}


def named(matchers: list[str]) -> set[str]:
    """The alerts that a matcher such as alertname=~"Prectr(A|B)" names."""
    (matcher,) = matchers
    found = re.fullmatch(r'alertname=~?"Prectr(?:(\w+)|\(([\w|]+)\))"', matcher)
    assert found is not None, matcher
    return {f"Prectr{name}" for name in (found[1] or found[2]).split("|")}


RULES = [(named(rule["source_matchers"]), named(rule["target_matchers"])) for rule in CONFIG["inhibit_rules"]]


class Alertmanager:
    """A running one. url: of its API."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/api/v2/alerts"

    def send(self, names: set[str], cluster: str) -> None:
        body = [{"labels": {"alertname": n, "severity": SEVERITIES.get(n, ""), "cluster": cluster}} for n in names]
        request = urllib.request.Request(self.url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10):
            pass

    def alerts(self, cluster: str) -> list[dict[str, Any]]:
        """The alerts of a cluster, once their states have been decided."""
        deadline = time.monotonic() + 30
        while True:
            with urllib.request.urlopen(self.url, timeout=10) as answer:
                found = [each for each in json.loads(answer.read()) if each["labels"]["cluster"] == cluster]
            if all(each["status"]["state"] != "unprocessed" for each in found):
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.1)

    def inhibited(self, cluster: str) -> set[str]:
        return {each["labels"]["alertname"] for each in self.alerts(cluster) if each["status"]["inhibitedBy"]}

    def wait_for_inhibited(self, cluster: str, expected: set[str]) -> None:
        """Until these are silenced: the cause may be known a moment after its effects."""
        deadline = time.monotonic() + 60
        while self.inhibited(cluster) != expected:
            assert time.monotonic() < deadline, (self.inhibited(cluster), expected)
            time.sleep(0.1)


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    folder = tmp_path_factory.mktemp("alertmanager")
    (port,) = free_ports(1)
    # Groups are sent at once: an alert has its state only then.
    (folder / "config.yml").write_text(EXAMPLE.read_text().replace("group_wait: 30s", "group_wait: 0s"))
    flags = [f"--config.file={folder / 'config.yml'}", f"--storage.path={folder}"]
    flags += [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([needed("prometheus-alertmanager"), *flags], stdout=log, stderr=log)
    try:
        wait_until_ready(port, process, folder / "log")
        yield Alertmanager(port)
    finally:
        process.kill()
        process.wait()


def wait_until_ready(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        with suppress(URLError), urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5):
            return
        time.sleep(0.1)


def test_amtool_finds_nothing_wrong_with_it() -> None:
    done = subprocess.run([needed("amtool"), "check-config", EXAMPLE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("severity", "receiver"), [("critical", "page"), ("warning", "ticket")])
def test_an_alert_goes_to_the_receiver_of_its_severity(severity: str, receiver: str) -> None:
    name = next(name for name, found in SEVERITIES.items() if found == severity)
    command = [needed("amtool"), "config", "routes", "test", "--config.file", EXAMPLE]
    labels = [f"alertname={name}", f"severity={severity}"]
    done = subprocess.run([*command, *labels], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [receiver]


@pytest.mark.parametrize(("sources", "targets"), RULES, ids=lambda names: "-".join(sorted(names))[:60])
def test_each_cause_silences_its_effects_of_the_same_system_alone(
    alertmanager: Alertmanager, sources: set[str], targets: set[str]
) -> None:
    for source in sources:
        effects = targets - {source}
        alertmanager.send({source, *effects}, cluster=f"{source}-is-the-cause")
        alertmanager.wait_for_inhibited(f"{source}-is-the-cause", effects)
        # Of another system, and one that is no cause of these.
        others = {name for name in effects if not any(name in causes for causes, _ in RULES)}
        alertmanager.send({"PrectrAucDropped", *others}, cluster=f"without-{source}")
        assert alertmanager.inhibited(f"without-{source}") == set()


def test_alerts_on_model_quality_and_on_data_are_silenced_by_nothing() -> None:
    silenced = set().union(*(targets for _, targets in RULES))
    assert not silenced & {"PrectrAucDropped", "PrectrGaucDropped", "PrectrMiscalibrated", "PrectrDeadLetters"}
    assert silenced <= SEVERITIES.keys()
