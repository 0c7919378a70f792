"""`make up` starts the system and prints its addresses, `make down` leaves nothing, and obstacles are reported."""

import json
import os
import re
import shutil
import signal
import socket
import time
from pathlib import Path
from urllib.request import urlopen

from prectr.ops.local_stack.processes import processes_of
from prectr.ops.local_stack.prometheus import write_config
from prectr.ops.local_stack.settings import UpSettings
from tests.local_stack.machine import ROOT, Machine, machine


def test_it_starts_prints_its_urls_resumes_its_data_and_leaves_nothing(up: Machine) -> None:
    done = up.make("up", UP_PAGES="300", UP_SPEED="max")
    assert done.returncode == 0, done.stdout + done.stderr
    addresses = re.findall(r"http://127\.0\.0\.1:\d+/[\w/]*", done.stdout)
    assert len(addresses) == 3 + 4
    for address in addresses:
        with urlopen(address, timeout=20) as answer:
            assert answer.status == 200
    again = up.make("up")
    assert again.returncode == 0
    assert "already up" in again.stdout
    assert again.stdout.splitlines()[1:] == done.stdout.splitlines()[1:]

    ended = up.make("down")
    assert ended.returncode == 0, ended.stderr
    assert not up.is_up(), (processes_of(up.folder), up.commands(), up.taken())
    log = up.parsed.log.read_text()
    # Processes with open commits were stopped first, and none had to be killed.
    assert "did not stop: killed" not in ended.stderr
    assert "system.1 stopped (rc=0)" in log
    assert "Traceback" not in log
    for path in (up.folder / "run" / "logs").iterdir():
        assert "Traceback" not in path.read_text(), path.read_text()[-3000:]
    repeated = up.make("down")
    assert (repeated.returncode, "nothing is running" in repeated.stdout) == (0, True)

    # Once more: nothing of the log is loaded twice. Then honcho dies, and nothing ends the others.
    lines = int(re.findall(r"demo log: (\d+) lines in", log)[-1])
    assert up.make("up", UP_PAGES="300", UP_SPEED="max").returncode == 0
    loaded = _until(up.parsed.log, r"demo log: (\d+) lines in search-events, (\d+) of them loaded now")
    assert loaded == [str(lines), "0"]
    honcho = [process.pid for process in processes_of(up.folder) if process.service == ""]
    for pid in honcho:
        os.kill(pid, signal.SIGKILL)
    assert up.taken()
    left = up.make("up")
    assert left.returncode != 0
    assert "stop them with make down" in left.stderr
    assert up.make("down").returncode == 0
    assert not up.is_up(), (processes_of(up.folder), up.commands(), up.taken())


def _until(log: Path, pattern: str) -> list[str]:
    end = time.monotonic() + 120
    while True:
        if match := re.search(pattern, log.read_text(errors="replace")):
            return list(match.groups())
        assert time.monotonic() < end, log.read_text(errors="replace")[-3000:]
        time.sleep(0.2)


def test_a_port_in_use_is_reported_with_a_fix_and_nothing_starts(up: Machine) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", up.parsed.prometheus_port))
        holder.listen()
        done = up.make("up")
    port = up.parsed.prometheus_port
    assert done.returncode != 0
    assert f"port {port} (Prometheus) is in use" in done.stderr
    assert f"make up UP_PROMETHEUS_PORT={port + 100}" in done.stderr
    assert not processes_of(up.folder)


def test_missing_tools_are_reported_with_how_to_install_them(up: Machine, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("make", "sh", "python3"):
        (tools / name).symlink_to(_found(name))
    done = up.make("up", PATH=str(tools), KAFKA_HOME=str(tmp_path))
    assert done.returncode != 0
    assert "Kafka: run `make kafka`" in done.stderr
    assert "apt-get install prometheus" in done.stderr
    assert not processes_of(up.folder)


def _found(name: str) -> str:
    found = shutil.which(name)
    assert found is not None
    return found


def test_wrong_settings_are_reported(tmp_path: Path) -> None:
    made = machine(tmp_path / "up")
    for settings, words in (
        ({"UP_KAFKA_PORT": "many"}, "UP_KAFKA_PORT=many: must be a whole number"),
        ({"UP_KAFKA_PORT": "70000"}, "must be at least 1 and at most"),
        ({"UP_PORT": "1"}, "unknown setting UP_PORT of make up; the settings are UP_DIR"),
        ({"UP_KAFKA_PORT": made.settings["UP_PROMETHEUS_PORT"]}, "two ports are equal"),
    ):
        done = made.make("up", **settings)
        assert done.returncode != 0
        assert words in done.stderr, done.stderr
        assert not processes_of(made.folder)


def test_prometheus_asks_all_that_is_up(tmp_path: Path) -> None:
    settings = UpSettings(dir=tmp_path, metrics_port=9500)
    write_config(settings)
    groups = json.loads((tmp_path / "prometheus" / "targets.yml").read_text())
    scraped = {group["labels"]["job"]: group["targets"] for group in groups}
    # As `prectr run --stream-workers 2 --metrics-port 9500` serves them: the trainer's first, the monitor's last.
    assert scraped == {
        "train": ["127.0.0.1:9500"],
        "stream": ["127.0.0.1:9502", "127.0.0.1:9503"],
        "monitor": ["127.0.0.1:9501"],
    }
    assert (tmp_path / "alerts").resolve() == ROOT / "ops" / "alerts"
