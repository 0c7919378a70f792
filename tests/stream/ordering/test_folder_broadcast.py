"""A folder of rank 0 arrives whole at every other rank, whatever is in it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from prectr.state.errors import CheckpointError
from prectr.stream.coordination import folder_broadcast
from prectr.stream.coordination.folder_broadcast import receive_folder, send_folder
from tests.kit.models.threads import ThreadExchange
from tests.stream.ordering.test_synchronized_steps import ThreadPeer

FILES = {
    "checkpoint.json": b"{}",
    "sinks/lr/trainer.safetensors": bytes(range(256)),
    "sinks/lr/empty": b"",
    "x/y/z": b"z",
}


def make(folder: Path) -> Path:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Of a part of a file, exactly a file, and several files.
@pytest.mark.parametrize("chunk_bytes", [3, 256, 4 << 20])
def test_every_rank_has_the_files_of_rank_0(chunk_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_broadcast, "CHUNK_BYTES", chunk_bytes)
    sent, meeting = make(tmp_path / "sent"), ThreadExchange(3)

    def work(rank: int) -> dict[str, bytes]:
        peer = ThreadPeer(rank, meeting)
        if rank == 0:
            send_folder(peer, sent)
            return content_of(sent)
        receive_folder(peer, tmp_path / f"copy-{rank}")
        return content_of(tmp_path / f"copy-{rank}")

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(work, range(3))) == [FILES] * 3


def test_a_rank_that_cannot_write_its_copy_says_where(tmp_path: Path) -> None:
    class Sender:
        rank, world_size = 1, 2

        def all_gather_bytes(self, payload: bytes) -> list[bytes]:
            return [b"\x92\xa1a\xc4\x01b", payload]

    (tmp_path / "copy").write_text("a file")
    with pytest.raises(CheckpointError, match=r"copy/a: the checkpoint of rank 0 cannot be written here .*TMPDIR"):
        receive_folder(Sender(), tmp_path / "copy")
