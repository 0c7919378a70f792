"""The snapshots of the state: whether there is one of every task, how old, and whether its files are there."""

import time
from collections.abc import Iterator
from typing import Final

from prectr.ops.doctor.findings import Finding
from prectr.ops.doctor.groups import Commits, Place
from prectr.ops.doctor.topic_checks import Snapshots
from prectr.state.errors import PrectrError
from prectr.state.manifest import Manifest, decode, is_name
from prectr.state.snapshot_storage import Location

_OLD: Final = 5
"""Intervals after which a snapshot that is behind the commit is called old."""


def check_snapshots(snapshots: Snapshots | None, commits: Commits) -> Iterator[Finding]:
    """Look at the newest manifest of every task that has read something; the files are not read."""
    if snapshots is None:
        return
    try:
        location = Location(snapshots.url)
    except PrectrError as error:
        yield Finding("snapshots", "error", str(error), "correct --snapshots")
        return
    well = 0
    for stage, places in commits.places.items():
        for place in places:
            if place.committed is None:
                continue
            task = f"{stage}-{place.partition.partition}"
            try:
                found = _task(location.below(task), place, commits.topic_ids[stage], snapshots.every)
            except PrectrError as error:
                found = "error", str(error), "see that this machine can read the place of the snapshots"
            if found is None:
                well += 1
            else:
                level, seen, advice = found
                yield Finding(f"snapshot {task}", "error" if level == "error" else "warning", seen, advice)
    if well:
        yield Finding("snapshots", "ok", f"{well} tasks have a fresh one in {location.name}")


def _task(location: Location, place: Place, topic_id: str, every: float) -> tuple[str, str, str] | None:
    """What is wrong with a task's snapshots: level, what was seen, what to do."""
    assert place.committed is not None
    names = sorted(filter(is_name, location.names("manifests")), reverse=True)
    if not names:
        return "warning", "there is none", "start its stream process with --snapshots; the first comes within minutes"
    sizes = location.sizes("files")
    manifests = [(name, _manifest(location, name)) for name in names]
    whole = [found for _, found in manifests if found is not None and found.sizes().items() <= sizes.items()]
    if not whole:
        return (
            "error",
            f"none of {len(names)} is whole",
            "delete the folder of the task; the next snapshot is made anew",
        )
    if whole[0] is not manifests[0][1]:
        return "warning", "the newest is damaged; the one before is whole", "nothing: the next one takes its place"
    return _held_against(whole[0], place, topic_id, every)


def _held_against(newest: Manifest, place: Place, topic_id: str, every: float) -> tuple[str, str, str] | None:
    """What is wrong with a whole snapshot, beside what the broker says."""
    assert place.committed is not None
    committed = place.committed[0]
    if newest.identity.get("topic_id") != topic_id:
        return "error", "it belongs to another system", "use another --snapshots, one a system"
    if newest.offset < min(place.first, committed):
        seen = f"offset {newest.offset:,}, but the log begins at {place.first:,}"
        return "error", seen, "a lost state folder could not be rebuilt: keep the log longer, see prectr topics check"
    age = time.time() - newest.created
    if age > _OLD * every and newest.offset < committed:
        seen = f"{age / 60:,.0f} min old, {committed - newest.offset:,} records behind the commit"
        return "warning", seen, "look into the log of its stream process: does it run, and with --snapshots?"
    return None


def _manifest(location: Location, name: str) -> Manifest | None:
    content = location.read(f"manifests/{name}")
    return None if content is None else decode(name, content)
