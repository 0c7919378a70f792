"""A snapshot's manifest that is damaged, or made to do damage, counts as corrupt."""

import msgspec
import pytest

from prectr.state.snapshots.manifest import SnapshotManifest, StoredFile, decode_manifest, encode_manifest

FILE = StoredFile("000007.sst", "0" * 64, 10, 1)
MANIFEST = SnapshotManifest(
    identity={"stage": "join"}, offset=5, writer_epoch="0" * 16, save_number=1, created_at=1.0, files=(FILE,)
)


def test_a_manifest_reads_back_as_it_was_written() -> None:
    assert decode_manifest(MANIFEST.name, encode_manifest(MANIFEST)) == MANIFEST


@pytest.mark.parametrize(
    "content",
    [
        encode_manifest(msgspec.structs.replace(MANIFEST, files=(FILE, FILE))),
        encode_manifest(MANIFEST).replace(b'"join"', b"[" * 100_000 + b"]" * 100_000),
        b'{"more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        encode_manifest(MANIFEST).replace(b'"size": 10', b'"size": -10'),
        encode_manifest(MANIFEST).replace(b"000007.sst", b"../000007.sst"),
    ],
    ids=["equal files", "nested identity", "nested field", "negative size", "file elsewhere"],
)
def test_a_damaged_manifest_is_corrupt(content: bytes) -> None:
    assert decode_manifest(MANIFEST.name, content) is None
