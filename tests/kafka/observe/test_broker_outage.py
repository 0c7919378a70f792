"""A broker that is away, hangs, or advertises an address that nobody reaches: what each process says of it."""

import json
import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from testkit.command import RunningCommand, prectr
from testkit.kafka_broker import Broker, free_ports
from tests.kafka.live import Live, replay_log
from tests.kafka.monitoring import MonitorProcess, wait_for
from tests.kafka.worlds import simulated, split_orderly_log
from tests.kit.observe.scrape import scrape_samples

_METRIC = ("prectr_broker_unreachable_seconds", frozenset[tuple[str, str]]())


def metrics_port(live: Live, process: RunningCommand) -> int:
    live.wait_for_log(process, "/metrics")
    found = re.search(r"metrics: http://127\.0\.0\.1:(\d+)/", live.stderr_of(process))
    assert found is not None
    return int(found[1])


def unreachable_seconds(port: int) -> float:
    return scrape_samples(port).get(_METRIC, -1.0)


def readiness(port: int) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def warnings_of(live: Live, process: RunningCommand) -> list[str]:
    return [line for line in live.stderr_of(process).splitlines() if " WARNING " in line]


def top(ports: list[int]) -> str:
    endpoints = [flag for port in ports for flag in ("--endpoint", f"127.0.0.1:{port}")]
    done = prectr("top", "--once", *endpoints, "--monitor", "127.0.0.1:1")
    assert done.returncode == 0, done.stderr
    return done.stdout


def doctor(live: Live) -> list[dict[str, Any]]:
    out = live.folder / "findings.json"
    prectr("doctor", "--bootstrap", live.bootstrap, "--json", out)
    findings: list[dict[str, Any]] = json.loads(out.read_bytes())
    return findings


def test_every_process_exports_an_outage_and_its_end_with_one_warning(own_broker: Broker, tmp_path: Path) -> None:
    own_broker.start()
    live = Live(own_broker.address, "", tmp_path)
    try:
        live.create()
        live.load(simulated(tmp_path, pages=300))
        stream = live.start_stream("1", "--metrics-port", "0")
        train = live.start_train("--metrics-port", "0")
        monitor = MonitorProcess(live).start()
        wait_for(lambda: monitor.port("metrics") is not None)
        ports = [metrics_port(live, stream), metrics_port(live, train), monitor.port("metrics") or 0]
        wait_for(lambda: all(unreachable_seconds(port) == 0 for port in ports))
        wait_for(lambda: all(readiness(port)[0] == 200 for port in ports), lambda: str([*map(readiness, ports)]))
        assert "Kafka has not answered" not in top(ports)

        before = {process: len(warnings_of(live, process)) for process in (stream, train)}
        own_broker.kill()
        wait_for(lambda: all(unreachable_seconds(port) > 0 for port in ports))
        for port in ports:
            status, text = readiness(port)
            assert (status, text[:26]) == (503, "Kafka has not answered for")
        assert "✗ Kafka has not answered for" in top(ports)
        # As long as no process has given up its tasks, and longer than every request lasts.
        time.sleep(20)
        assert all(process.poll() is None for process in (stream, train))
        for process in (stream, train):
            warnings = warnings_of(live, process)[before[process] :]
            assert len(warnings) <= 4, warnings

        own_broker.start()
        wait_for(lambda: all(unreachable_seconds(port) == 0 for port in ports))
        wait_for(lambda: all(readiness(port)[0] == 200 for port in ports), lambda: str([*map(readiness, ports)]))
        for process in (stream, train):
            live.request_stop(process)
            live.wait_for_end(process)
    finally:
        live.kill_all()


def test_a_wrong_advertised_address_is_an_outage_until_it_is_put_right(own_broker: Broker, tmp_path: Path) -> None:
    """Nothing is restarted: every client finds the right address again through the bootstrap address."""
    own_broker.start()
    live = Live(own_broker.address, "", tmp_path)
    try:
        live.create()
        world = simulated(tmp_path)
        first, second = split_orderly_log(world, live.partitions, tmp_path)
        live.load(first)
        stream = live.start_stream("1", "--metrics-port", "0")
        train = live.start_train("--metrics-port", "0")
        monitor = MonitorProcess(live).start()
        wait_for(lambda: monitor.port("metrics") is not None)
        ports = [metrics_port(live, stream), metrics_port(live, train), monitor.port("metrics") or 0]
        wait_for(lambda: all(unreachable_seconds(port) == 0 for port in ports))

        own_broker.stop()
        own_broker.advertise(f"127.0.0.1:{free_ports(1)[0]}")
        own_broker.start()
        # A client that finds the broker at its old address has one answer more before it follows the new one.
        time.sleep(10)
        wait_for(
            lambda: all(unreachable_seconds(port) > 15 for port in ports),
            lambda: str([*map(unreachable_seconds, ports)]),
        )
        # The bootstrap address answers all the time, and does not make it look as if work went on.
        for _ in range(15):
            time.sleep(1)
            assert all(unreachable_seconds(port) > 0 for port in ports)

        own_broker.stop()
        own_broker.advertise(own_broker.address)
        own_broker.start()
        wait_for(lambda: all(unreachable_seconds(port) == 0 for port in ports))
        live.load(second)
        time.sleep(5)
        for process in (stream, train):
            live.request_stop(process)
            live.wait_for_end(process)
        live.stream(1, "--flush")
        assert live.train_and_read("--flush") == replay_log(tmp_path, world)
    finally:
        live.kill_all()


def test_doctor_answers_although_the_broker_hangs(own_broker: Broker, tmp_path: Path) -> None:
    own_broker.start()
    live = Live(own_broker.address, "", tmp_path)
    live.create()
    own_broker.freeze()
    try:
        (finding,) = [finding for finding in doctor(live) if finding["severity"] == "error"]
    finally:
        own_broker.thaw()
    assert finding["name"] == "broker"
    assert "no answer" in finding["observed"]


@pytest.mark.parametrize(
    "command",
    [["topics", "create"], ["stream", "--state-dir", "state"], ["monitor", "--data-dir", "tables"], ["doctor"]],
)
def test_an_advertised_address_that_cannot_be_reached_is_named(
    own_broker: Broker, tmp_path: Path, command: list[str]
) -> None:
    closed = f"127.0.0.1:{free_ports(1)[0]}"
    own_broker.advertise(closed)
    own_broker.start()
    flags = [str(tmp_path / word) if word in ("state", "tables") else word for word in command]
    done = prectr(*flags, "--bootstrap", own_broker.address, "--connect-timeout", "2")
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert f"its brokers advertise {closed} (Connection refused), which cannot be reached from here" in said
    assert "set advertised.listeners of the brokers" in said
    assert "NodeNotReady" not in said
