"""What a file looks like: recognised by its first bytes, with what to do; a log with some bad lines is not refused."""

import gzip
import json
from pathlib import Path

import pytest
import zstandard

from prectr.state.errors import InputError, UsageError
from prectr.stream.readers import LogFile, check_log

EVENT = {"type": "click", "request_id": "r", "user_id": "u", "item_id": "a", "ts": 1_700_000_000_000}
LINE = json.dumps(EVENT).encode()
NESTED = EVENT | {"items": [{"item_id": "a"}, {"item_id": "b"}]}

FOREIGN = {
    "JSON array": (json.dumps([EVENT, EVENT]).encode(), "JSON array"),
    "JSON array, an element a line": (b"[\n" + LINE + b",\n" + LINE + b"\n]\n", "JSON array"),
    "JSON array, pretty-printed": (json.dumps([NESTED] * 3, indent=2).encode(), "JSON array"),
    "pretty-printed JSON": (json.dumps(NESTED, indent=2).encode(), "pretty-printed"),
    "pretty-printed JSON, compact items": (
        b'{\n  "type": "x",\n  "items": [\n    {"item_id": "a"}\n  ]\n}\n',
        "pretty-printed",
    ),
    "UTF-16": (LINE.decode().encode("utf-16"), "UTF-16"),
    "UTF-16 without a mark": (LINE.decode().encode("utf-16-le"), "UTF-16"),
    "CSV": (b"user,query,ts\nu1,red shoes,1700000000000\n", "CSV"),
    "TSV": (b"user\tquery\nu1\tred shoes\n", "CSV"),
    "spreadsheet": (b"PK\x03\x04....", "spreadsheet"),
    "bzip2": (b"BZh91AY", "bzip2"),
    "xz": (b"\xfd7zXZ\x00\x00", "xz"),
    "Avro": (b"Obj\x01\x04", "Avro"),
}


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_that_is_something_else_is_named_with_what_it_is(tmp_path: Path, kind: str, name: str) -> None:
    content, said = FOREIGN[kind]
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(InputError, match=said) as caught:
        check_log([path])
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        LINE,
        b"\xef\xbb\xbf" + LINE,
        b"junk, and more\njunk, and more\n" + LINE + b"\n",
        b"[1]\n" + LINE,
        LINE[:20] + b"\n" + LINE + b"\n",
        b"{\n" + LINE + b"\n",
        b"one word a line\nanother\n",
        b'{"type": "cli',
    ],
)
def test_a_log_with_bad_lines_is_a_log(tmp_path: Path, content: bytes) -> None:
    for name, data in (("a.jsonl", content), ("a.jsonl.zst", zstandard.compress(content)), ("b.jsonl.gz", content)):
        (tmp_path / name).write_bytes(data)
        check_log([tmp_path / name])


def test_what_is_no_log_by_its_name_is_to_be_converted(tmp_path: Path) -> None:
    (tmp_path / "searches.csv").write_bytes(b"a,b\n")
    with pytest.raises(UsageError, match="convert it to events"):
        check_log([tmp_path / "searches.csv"])


def test_a_window_too_large_for_memory_is_named_with_its_remedy(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=31, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    path = tmp_path / "log.jsonl.zst"
    path.write_bytes(compressor.compress(LINE + b"\n") + compressor.flush())
    check_log([path])

    with pytest.raises(InputError, match=r"more than 128 MiB \(zstd --long\): compress it again without that"):
        list(LogFile(path).chunks())
