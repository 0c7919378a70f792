"""One broker per test session (of each pytest worker), and live systems on it."""

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.kafka_broker import INSTALL_HINT, Broker, kafka_home
from tests.kafka.live import Live

_numbers = itertools.count()


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    home = kafka_home()
    if home is None:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(f"no Kafka to test with: {INSTALL_HINT}")
        pytest.skip(f"no Kafka to test with: {INSTALL_HINT}")
    folder = tmp_path_factory.mktemp("kafka")
    broker = Broker(home, folder)
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def own_broker(broker: Broker, tmp_path: Path) -> Iterator[Broker]:
    """A broker that no other test needs, not started; skipped as `broker` is."""
    home = kafka_home()
    assert home is not None
    own = Broker(home, tmp_path / "kafka")
    try:
        yield own
    finally:
        own.stop()


@pytest.fixture
def live(broker: Broker, tmp_path: Path) -> Iterator[Live]:
    """A live system with its own prefix on the broker; its processes are killed at the end."""
    live = Live(broker.address, f"t{os.getpid()}-{next(_numbers)}.", tmp_path)
    try:
        yield live
    finally:
        live.kill_all()
