"""Manifests that somebody else wrote: passed over for the snapshot before, with a warning, and never a failed start."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prectr.state.errors import StateError
from prectr.state.snapshots.manifest import MANIFEST_FORMAT, decode_manifest
from tests.kit.stages.snapshots import contents, files_of, manifests, open_snapshots, save_snapshots

NESTED = "[" * 100_000


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def with_files(content: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**content, "files": [{**content["files"][0], **changes}, *content["files"][1:]]}


FORGERIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "nested": lambda content: NESTED,
    "nested in the identity": lambda content: json.dumps({**content, "identity": "X"}).replace(
        '"X"', NESTED + "]" * 100_000
    ),
    "an identity that only just decodes": lambda content: {**content, "identity": {"config": nested(500)}},
    "a negative format": lambda content: {**content, "format": -1},
    "a format that is no number of a release": lambda content: {**content, "format": 1 << 40},
    "200,000 equal files": lambda content: {**content, "files": content["files"][:1] * 200_000},
    "two files of one name": lambda content: {**content, "files": content["files"][:1] * 2},
    "a negative size": lambda content: with_files(content, size=-1),
    "a name of 300 characters": lambda content: with_files(content, name="n" * 300),
    "a name of two lines": lambda content: with_files(content, name="CURRENT\n"),
    "a time without end": lambda content: json.dumps(content).replace(str(content["created_at"]), "1e400"),
    "a negative save": lambda content: {**content, "save_number": -1},
    "an offset beyond those of Kafka": lambda content: {**content, "offset": 1 << 63},
    "17 MB": lambda content: " " * (17 << 20) + json.dumps(content),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_manifest_is_passed_over_for_the_snapshot_before(
    forge: Callable[[dict[str, Any]], Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_snapshots(open_snapshots(tmp_path / "remote"), tmp_path, 4, 5)
    place = tmp_path / "remote" / "join-0"
    name = manifests(place)[-1]
    path = place / "manifests" / name
    forged = forge(json.loads(path.read_text()))
    path.write_text(forged if isinstance(forged, str) else json.dumps(forged))
    reader = open_snapshots(tmp_path / "remote")
    with caplog.at_level(logging.WARNING):
        assert reader.restore(tmp_path / "store") == 4
    assert files_of(tmp_path / "store") == contents(4)
    (record,) = caplog.records
    assert f"snapshot {name} is corrupt" in record.getMessage()


def test_where_every_manifest_is_forged_nothing_is_restored_and_nothing_fails(tmp_path: Path) -> None:
    """The log is the other source."""
    save_snapshots(open_snapshots(tmp_path / "remote"), tmp_path, 4, 5)
    place = tmp_path / "remote" / "join-0"
    for name in manifests(place):
        (place / "manifests" / name).write_text(NESTED)
    reader = open_snapshots(tmp_path / "remote")
    assert reader.newest() is None
    assert reader.restore(tmp_path / "store") is None
    assert reader.corrupt_count == 2


def test_a_downloaded_state_with_a_problem_is_passed_over_for_the_snapshot_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_snapshots(open_snapshots(tmp_path / "remote"), tmp_path, 4, 5)
    reader = open_snapshots(tmp_path / "remote")
    seen: list[dict[str, bytes]] = []

    def problem_of(folder: Path) -> str:
        seen.append(files_of(folder))
        return "it is empty" if len(seen) == 1 else ""

    with caplog.at_level(logging.WARNING):
        assert reader.restore(tmp_path / "store", problem_of=problem_of) == 4
    assert seen == [contents(5), contents(4)]
    assert files_of(tmp_path / "store") == contents(4)
    assert "is corrupt: it is empty: trying the previous one" in caplog.text


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
NAME = f"{4:020}-{'0' * 16}-{1:08}.json"
VALID = {
    "format": MANIFEST_FORMAT,
    "identity": {"cluster": "c1", "config": {"window": 600}},
    "offset": 4,
    "writer_epoch": "0" * 16,
    "save_number": 1,
    "created_at": 1.7e9,
    "files": [{"name": "CURRENT", "sha256": "a" * 64, "size": 7, "save_number": 1}],
}
PATHS: list[tuple[Any, ...]] = [
    *((name,) for name in VALID),
    *(("files", 0, name) for name in ("name", "sha256", "size", "save_number")),
    ("files", 0),
    ("identity", "config"),
]


def replaced(node: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(node) if isinstance(node, dict) else list(node)
    copy[path[0]] = replaced(node[path[0]], path[1:], value)
    return copy


@settings(max_examples=300, deadline=None)
@given(
    content=st.binary(max_size=100)
    | anything.map(lambda value: json.dumps(value).encode())
    | st.builds(replaced, st.just(VALID), st.sampled_from(PATHS), anything).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_whatever_a_manifest_holds_it_is_in_range_corrupt_or_of_another_format(content: bytes) -> None:
    try:
        manifest = decode_manifest(NAME, content)
    except StateError as error:
        message = str(error)
    else:
        message = ""
        if manifest is not None:
            assert manifest.name == NAME
            for file in manifest.files:
                assert 0 <= file.size < 1 << 63
                assert 0 < len(file.name) <= 128
                assert not set(file.name) & set("/\n\0")
    assert not message or "reads format 1" in message


def test_the_valid_manifest_is_read() -> None:
    assert decode_manifest(NAME, json.dumps(VALID).encode()) is not None
