"""A checkpoint with right digests and wrong tensors is refused before any of it is copied into the model."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from prectr.model.layers import memory
from prectr.model.training import checkpoint_files
from prectr.model.training.trainer import Trainer
from prectr.state.errors import CheckpointError, ConfigError
from tests.kit.models.examples import random_examples, small_config

EXAMPLES = random_examples(20, seed=7)
VALUES = "model.table.embedding.values"
SQUARES = "model.table.embedding.state.squares"
ROWS = "model.table.embedding.rows"
CACHED = "model.pair_cache.values"


def _set(index: int, value: float) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        changed = tensor.clone()
        changed.view(-1)[index] = value
        return changed

    return change


def _rewrite(folder: Path, name: str, content: bytes) -> None:
    """Write a file of the checkpoint, with its right digest in the header."""
    (folder / name).write_bytes(content)
    header = json.loads((folder / checkpoint_files.HEADER).read_bytes())
    header["sha256"][name] = hashlib.sha256(content).hexdigest()
    (folder / checkpoint_files.HEADER).write_text(json.dumps(header))


def _saved(folder: Path, model: str = "prectr-v2") -> Path:
    trainer = Trainer(small_config(model=model))
    trainer.consume(EXAMPLES, 0)
    trainer.save(folder)
    return folder


def _change(folder: Path, changes: dict[str, Callable[[Tensor], Tensor] | None]) -> None:
    tensors = load_file(folder / checkpoint_files.TENSORS)
    for name, change in changes.items():
        tensors[name] = torch.zeros(3) if name not in tensors or change is None else change(tensors[name]).contiguous()
    save_file(tensors, folder / "changed")
    _rewrite(folder, checkpoint_files.TENSORS, (folder / "changed").read_bytes())


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("model.dense.values", lambda t: t[:1], r"float32\[1\], not float32\[\d+\]"),
        ("model.dense.values", lambda t: t[0], r"float32\[\], not float32\[\d+\]"),
        ("model.dense.mean", lambda t: t.unsqueeze(0), r"float32\[1, \d+\], not float32\[\d+\]"),
        ("model.dense.square", lambda t: t.double(), r"float64\[\d+\], not float32"),
        ("model.dense.square", _set(3, -1e-9), "holds -9.99.*e-10"),
        ("model.dense.steps", _set(0, -1), "holds -1"),
        (VALUES, lambda t: t[:1], r"float32\[1, 8\], not float32\[\d+, 8\]"),
        (VALUES, lambda t: t[:, :1], r"float32\[\d+, 1\], not float32\[\d+, 8\]"),
        (VALUES, _set(5, torch.nan), "holds nan"),
        (SQUARES, lambda t: t[:-1], r"float32\[\d+, 8\], not float32"),
        (SQUARES, _set(5, torch.inf), "holds inf"),
        (ROWS, lambda t: t.unsqueeze(1), r"int64\[\d+, 1\], not int64\[\d+\]"),
        (ROWS, lambda t: t.int(), "int32.*not int64"),
        (CACHED, lambda t: t[:1], r"float16\[1, 133\], not float16"),
        (CACHED, lambda t: t.float(), "float32.*not float16"),
        (CACHED, _set(0, torch.nan), "holds nan"),
        ("model.pair_cache.keys", lambda t: t[:1], r"int64\[1\], not int64\[\d+\]"),
        ("model.exposure.sums", lambda t: t[:1], r"float32\[1, 3\], not"),
        ("model.exposure.sums", _set(0, -1.0), "holds -1.0"),
        ("model.exposed_pairs.bits", lambda t: t[:-1], r"uint8\[511\], not uint8\[512\]"),
        ("prior_rates.clicks", lambda t: t[:1], r"float64\[1, 4\], not float64\[64, 4\]"),
        ("prior_rates.impressions", _set(0, -2.0), "holds -2.0"),
        ("model.table.other.values", None, "unknown"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named_with_what_would_and_nothing_is_copied(
    name: str, change: Callable[[Tensor], Tensor] | None, message: str, tmp_path: Path
) -> None:
    _change(_saved(tmp_path), {name: change})
    trainer = Trainer(small_config(model="prectr-v2"))
    before = {each: tensor.clone() for each, tensor in trainer._tensors().items()}
    with pytest.raises(CheckpointError, match=f"{name}.*{message}.*older checkpoint"):
        trainer.load(tmp_path)
    after = trainer._tensors()
    assert all(torch.equal(after[each], tensor) for each, tensor in before.items())


@pytest.mark.parametrize(
    ("name", "place", "row", "said"),
    [
        (ROWS, 0, -1, "from -1 to"),
        (ROWS, -1, 4096, "to 4096, not .* of a table of 4096"),
        ("model.pair_cache.slots", -1, 1024, "to 1024"),
        ("model.exposure.rows", 0, -3, "from -3"),
        ("model.exposure.rows", -1, 1 << 40, "to 1099511627776"),
    ],
)
def test_rows_that_a_table_has_not_are_refused(name: str, place: int, row: int, said: str, tmp_path: Path) -> None:
    _change(_saved(tmp_path), {name: _set(place, row)})
    with pytest.raises(CheckpointError, match=f"rows .*{said}"):
        Trainer(small_config(model="prectr-v2")).load(tmp_path)


def test_rows_that_are_listed_twice_are_refused(tmp_path: Path) -> None:
    _change(_saved(tmp_path), {ROWS: lambda rows: torch.cat([rows[:1], rows[:1], rows[2:]])})
    with pytest.raises(CheckpointError, match="not distinct and ascending"):
        Trainer(small_config(model="prectr-v2")).load(tmp_path)


@pytest.mark.parametrize("model", ["lr", "dnn", "wide-deep+"])
def test_a_missing_tensor_is_named(model: str, tmp_path: Path) -> None:
    tensors = load_file(_saved(tmp_path, model) / checkpoint_files.TENSORS)
    name = next(name for name in sorted(tensors) if name.endswith("values"))
    del tensors[name]
    save_file(tensors, tmp_path / "changed")
    _rewrite(tmp_path, checkpoint_files.TENSORS, (tmp_path / "changed").read_bytes())
    with pytest.raises(CheckpointError, match=f"{name}: missing"):
        Trainer(small_config(model=model)).load(tmp_path)


@pytest.mark.parametrize("name", [checkpoint_files.HEADER, checkpoint_files.PROGRESS])
def test_nesting_without_end_is_damage_and_no_mistake_of_the_program(name: str, tmp_path: Path) -> None:
    _saved(tmp_path, "lr")
    nested = b'{"format": 1, "config": {}, "sha256": {}, "more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    if name == checkpoint_files.HEADER:
        (tmp_path / name).write_bytes(nested)
    else:
        _rewrite(tmp_path, name, b"\x81\xa4more" + b"\x91" * 100_000 + b"\x90")
    with pytest.raises(CheckpointError, match=r"older checkpoint"):
        Trainer(small_config(model="lr")).load(tmp_path)


def test_a_configuration_that_asks_for_more_than_there_is_is_refused_before_it_is_allocated(tmp_path: Path) -> None:
    """`prectr rank` makes the model that the checkpoint's header describes."""
    _saved(tmp_path, "dnn")
    path = tmp_path / checkpoint_files.HEADER
    header = json.loads(path.read_bytes())
    header["config"]["hidden"] = [65536] * 64
    path.write_text(json.dumps(header))
    with pytest.raises(ConfigError, match=r"dnn with hidden \[65536.* GiB of memory, and .* are available"):
        Trainer(checkpoint_files.read_config(tmp_path))


def test_a_file_that_does_not_fit_into_memory_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _saved(tmp_path, "lr")
    trainer = Trainer(small_config(model="lr"))
    monkeypatch.setattr(memory, "available_memory", lambda: 10_000)
    with pytest.raises(CheckpointError, match=rf"{checkpoint_files.TENSORS} .*it has .* GiB of memory"):
        trainer.load(tmp_path)
