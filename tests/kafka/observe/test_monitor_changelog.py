"""The changelog of the monitor's tables is deleted or emptied: everything is read again from model-quality."""

import shutil
import signal
import time

import pytest
from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from prectr.model.quality.record import encode_record
from prectr.stream.kafka.client.client import Connection
from tests.kafka.live import Live
from tests.kafka.monitoring import MonitorProcess, wait_for
from tests.kafka.observe.test_monitor import send
from tests.ops.monitor.test_forged_records import record

pytestmark = pytest.mark.usefixtures("broker")
WINDOWS = 50
PAGES = 9 * WINDOWS
"""Three segments of three pages in each window."""


def changelogs(connection: Connection, prefix: str) -> list[str]:
    names = connection.call_admin(lambda admin: admin.list_topics())
    return [name for name in names if name.startswith(prefix) and name.endswith("-changelog")]


@pytest.mark.parametrize("how", ["deleted", "emptied"])
@pytest.mark.parametrize("has_folder", [True, False], ids=["old folder", "no folder"])
@pytest.mark.parametrize("is_killed", [True, False], ids=["killed", "stopped"])
def test_a_lost_changelog_is_told_and_nothing_that_is_in_the_topic_is_lost(
    how: str, has_folder: bool, is_killed: bool, live: Live
) -> None:
    live.create()
    monitor = MonitorProcess(live).start()
    newest = int(time.time()) // 60
    for age in range(WINDOWS):
        window = record(newest - age)
        send(live, (window.key, encode_record(window)))
    monitor.wait_for_pages(PAGES)
    # Faust commits every 2.8 s: without it, everything would be read again anyway.
    time.sleep(4)
    assert monitor.process is not None
    monitor.process.send_signal(signal.SIGKILL if is_killed else signal.SIGTERM)
    monitor.process.wait(60)
    connection = Connection(live.bootstrap)
    names = changelogs(connection, live.prefix)
    assert len(names) == 2
    if how == "deleted":
        connection.call_admin(lambda admin: admin.delete_topics(names))
        wait_for(lambda: not changelogs(connection, live.prefix))
    else:
        # Kafka deletes no records of a topic that is only compacted.
        policy = {"cleanup.policy": "compact,delete"}
        resources = [ConfigResource(ConfigResourceType.TOPIC, name, configs=policy) for name in names]
        connection.call_admin(lambda admin: admin.alter_configs(resources))
        everything = {TopicPartition(name, 0): -1 for name in names}
        connection.call_admin(lambda admin: admin.delete_records(everything))
    if not has_folder:
        shutil.rmtree(live.folder / "monitor")
    monitor.start()
    wait_for(lambda: monitor.quality()["status"] == "reading", monitor.log_text)
    monitor.wait_for_pages(PAGES)
    if how == "deleted" or not has_folder:
        assert f"the changelog of the monitor's tables has been {how}" in monitor.log_text()
    assert "Traceback" not in monitor.log_text()
