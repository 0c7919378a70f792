"""The settings of the compose file's Kafka are ones that a real broker starts with and the system can work on."""

import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml

from prectr.ops.local_stack.broker import INSTALL_HINT, broker_command, format_storage, java_command, kafka_home
from testkit.command import prectr
from testkit.kafka_broker import free_ports
from tests.local_stack.machine import ROOT
from tests.local_stack.tools import missing


def properties_of(environ: dict[str, str]) -> dict[str, str]:
    """What the image makes of its environment: KAFKA_LOG_DIRS is log.dirs."""
    # Those that are read by the scripts around the broker.
    own = {"KAFKA_HEAP_OPTS"}
    return {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in environ.items()
        if name.startswith("KAFKA_") and name not in own
    }


def test_a_broker_starts_with_it_and_takes_the_systems_topics(tmp_path: Path) -> None:
    home = kafka_home()
    if home is None:
        missing(f"no Kafka to test with: {INSTALL_HINT}")
        return
    compose: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    properties = properties_of(compose["services"]["kafka"]["environment"])
    inside, host, controller = free_ports(3)
    moves = {
        "kafka:29092": f"localhost:{inside}",
        ":29092": f":{inside}",
        ":9092": f":{host}",
        ":9093": f":{controller}",
    }
    properties["log.dirs"] = str(tmp_path / "data")
    text = "".join(f"{name}={value}\n" for name, value in properties.items())
    for there, here in moves.items():
        text = text.replace(there, here)
    file = tmp_path / "server.properties"
    file.write_text(text)
    java = java_command(home)
    format_storage(java, file, standalone=False)
    log = tmp_path / "server.log"
    with ExitStack() as stack:
        out = stack.enter_context(log.open("wb"))
        broker = subprocess.Popen(broker_command(java, file), stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        stack.callback(broker.wait)
        stack.callback(broker.kill)
        end = time.monotonic() + 120
        while b"Kafka Server started" not in log.read_bytes():
            assert broker.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < end, log.read_text()[-3000:]
            time.sleep(0.2)
        # From inside, by the compose network's listener, and from this machine.
        for port in (inside, host):
            done = prectr("topics", "create", "--bootstrap", f"localhost:{port}", "--partitions", "4")
            assert done.returncode == 0, done.stderr
            assert "search-events" in done.stdout
        checked = prectr("topics", "check", "--bootstrap", f"localhost:{inside}")
        assert checked.returncode == 0, checked.stdout + checked.stderr
    # Each is a setting that the broker knows, or it would be in the log as one that it does not.
    known = log.read_text(errors="replace")
    for name in properties:
        assert f"{name} = " in known, name
