"""A limit of the system is named where it is hit, and what could not be read for it counts as whole."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from prectr.model.training import checkpoint as trainer_checkpoint
from prectr.model.training import checkpoint_files
from prectr.state.errors import CheckpointError, StateError, SystemLimitError
from prectr.state.store import Store
from prectr.state.system_limits import limit_advice, limit_of
from prectr.stream.replay.run_checkpoint import ReplayCheckpoint, read_manifest
from tests.kit.models.examples import small_config

LIMITS = (errno.EMFILE, errno.ENFILE, errno.EFBIG, errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)
OPEN_IN_FULL = """
import os, sys
from pathlib import Path
from prectr.state.errors import SystemLimitError
from prectr.state.store import Store
while True:
    try:
        os.open("/dev/null", os.O_RDONLY)
    except OSError:
        break
try:
    Store(Path(sys.argv[1]))
except SystemLimitError as error:
    print(error)
"""


@pytest.mark.parametrize("number", LIMITS)
def test_an_error_of_a_limit_is_known_by_its_number_and_by_its_text(number: int) -> None:
    error = OSError(number, os.strerror(number), "file")
    assert limit_of(error) == number
    assert limit_of(Exception(f"IO error: While open a file: x.sst: {os.strerror(number)}")) == number
    assert limit_advice(error).endswith("then run the same command again")


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOENT, "gone"), OSError(errno.EAGAIN, "a lock"), ValueError("x"), StateError("corrupt")]
)
def test_other_errors_are_of_no_limit(error: Exception) -> None:
    assert (limit_of(error), limit_advice(error)) == (None, "")


def test_the_advice_has_the_value_of_the_limit() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert f"the limit of open files is {soft:,}: raise it" in limit_advice(OSError(errno.EMFILE, ""))


def test_a_store_that_cannot_be_opened_for_want_of_open_files_is_not_blamed(tmp_path: Path) -> None:
    Store(tmp_path / "store").close()
    done = subprocess.run(
        [sys.executable, "-c", OPEN_IN_FULL, tmp_path / "store"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "the limit of open files is 64: raise it, by ulimit -n" in done.stdout
    assert "delete" not in done.stdout
    assert "another process" not in done.stdout


@pytest.mark.parametrize("number", LIMITS)
def test_a_store_that_hits_a_limit_raises_an_error_of_its_own(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Limited:
        def write(self, *_: object) -> None:
            raise Exception(f"IO error: {os.strerror(number)}: While appending to file")

    store = Store(tmp_path / "store")
    monkeypatch.setattr(store, "_db", Limited())
    with pytest.raises(SystemLimitError, match="then run the same command again"):
        store.write({b"a": b"1"})


@pytest.mark.parametrize(
    "read",
    [
        lambda folder: read_manifest(folder, ReplayCheckpoint),
        lambda folder: trainer_checkpoint.read(folder, small_config()),
    ],
    ids=["run", "trainer"],
)
def test_a_checkpoint_that_cannot_be_read_for_a_limit_is_not_to_be_deleted(
    read: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("manifest.json", checkpoint_files.HEADER):
        (tmp_path / name).write_bytes(b"{}")

    def limited(path: Path) -> bytes:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    monkeypatch.setattr(Path, "read_bytes", limited)
    with pytest.raises(CheckpointError) as raised:
        read(tmp_path)  # type: ignore[operator]
    assert "the limit of open files" in str(raised.value)
    assert raised.value.remedies == ()
    assert "delete" not in str(raised.value)
