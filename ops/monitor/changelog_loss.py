"""Notices that the changelog of the monitor's tables is gone, and has everything read again from `model-quality`.

Faust restores tables from their changelog and goes on at the committed offset of `model-quality`. With the changelog
deleted or emptied it would show nothing of what had been read before, or refuse its own tables for ever.
"""

import logging
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import rocksdict
from kafka import TopicPartition
from kafka.errors import NoError
from kafka.structs import OffsetAndMetadata

from prectr.stream.kafka.client.client import Connection
from prectr.stream.kafka.client.end_offsets import EndOffsets, OffsetRange

_OFFSET_KEY: Final = b"__faust\0offset__"
"""Where Faust keeps the offset of the changelog that a table is restored to."""
_ACTIVE_GRACE: Final = 5.0
"""Seconds beyond the session timeout for which a group counts a process that was killed as a member."""
_POLL_INTERVAL: Final = 1.0
_log = logging.getLogger(__name__)


def rebuild_if_lost(
    connection: Connection,
    group: str,
    source: TopicPartition,
    table: Path,
    *,
    session_timeout: float,
    stop: Callable[[], bool],
) -> bool:
    """If the changelog of a table is gone, move the tables aside and let the group read its topic from the beginning.

    Call it before Faust starts. Nothing is done while another monitor is active, which has the tables.

    Args:
        source: the partition that the tables are made from.
        table: folder of the table's partition, in Faust's folder of tables.
        session_timeout: seconds.
        stop: whether to give up waiting for a member of the group that has died.

    Returns:
        Whether the tables are built anew.

    Raises:
        PrectrError: the broker does not answer.
    """
    changelog = f"{group}-quality-windows-changelog"
    committed = connection.call_admin(lambda admin: admin.list_group_offsets([group])).get(group, {}).get(source)
    ranges = _ranges(connection, source, TopicPartition(changelog, source.partition))
    first, held = ranges[0].start, ranges[1]
    if committed is None or committed.offset <= first or not _is_lost(held, table):
        return False
    deadline = time.monotonic() + session_timeout + _ACTIVE_GRACE
    start = {source: OffsetAndMetadata(first, "", None)}
    while connection.call_admin(lambda admin: admin.alter_group_offsets(group, start))[source] is not NoError:
        if stop() or time.monotonic() > deadline:
            return False
        time.sleep(_POLL_INTERVAL)
    aside = set_aside(table.parent)
    _log.warning(
        "%s: the changelog of the monitor's tables %s: they are rebuilt from %s, from offset %d on. Quality that is no "
        "longer in that topic is not shown any more%s",
        changelog,
        "has been deleted" if held is None or not held.end else "has been emptied",
        source.topic,
        first,
        f"; the old tables are in {aside}" if aside else "",
    )
    return True


def set_aside(tables: Path) -> Path | None:
    """Move Faust's folder of tables aside, in place of what was moved before; None if there is none."""
    aside = tables.with_name(f"{tables.name}.replaced")
    if not tables.is_dir():
        return None
    shutil.rmtree(aside, ignore_errors=True)
    tables.rename(aside)
    return aside


def _ranges(
    connection: Connection, source: TopicPartition, changelog: TopicPartition
) -> tuple[OffsetRange, OffsetRange | None]:
    """The offsets that the topic and its changelog hold; None for a changelog that does not exist."""
    exists = changelog.topic in connection.call_admin(lambda admin: admin.list_topics())
    ends = EndOffsets(connection)
    try:
        with connection.translate_errors():
            found = ends.fetch_ranges([source, changelog] if exists else [source])
    finally:
        ends.close()
    return found[source], found.get(changelog)


def _is_lost(held: OffsetRange | None, table: Path) -> bool:
    """Whether neither the changelog nor the table on disk has what was read."""
    if held is None or not held.end:
        return True
    return held.start == held.end and _restored_to(table) != held.end - 1


def _restored_to(table: Path) -> int | None:
    """The offset of the changelog that a table on disk is restored to; None if it is not known."""
    if not table.is_dir():
        return None
    # rocksdict raises plain Exception.
    with suppress(Exception):
        database = rocksdict.Rdict(
            str(table), options=rocksdict.Options(raw_mode=True), access_type=rocksdict.AccessType.read_only()
        )
        try:
            found = database.get(_OFFSET_KEY)
        finally:
            database.close()
        return None if found is None else int(found)
    return None
