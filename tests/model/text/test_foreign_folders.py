"""Folders that somebody else has made, with right digests: held to bounds before anything is allocated or run."""

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from tokenizers import Tokenizer
from torch import Tensor
from typer.testing import CliRunner

from prectr.model.layers import memory
from prectr.model.text.encoder import graded
from prectr.model.text.encoder.artifact import load_encoder
from prectr.model.text.teacher.teacher import open_teacher
from prectr.ops.cli.main import app
from prectr.state.errors import CheckpointError, InputError, UsageError
from tests.kit.models.encoder import tiny_encoder
from tests.kit.models.teachers import save_classifier

CPU = torch.device("cpu")
NESTED = "[" * 100_000 + "]" * 100_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_encoder(), tmp_path / "encoder"))


def _put(folder: Path, name: str, content: bytes) -> None:
    """Replace a file of an encoder, and vouch for it."""
    (folder / name).write_bytes(content)
    header = json.loads((folder / "relevance.json").read_bytes())
    header["sha256"][name] = hashlib.sha256(content).hexdigest()
    (folder / "relevance.json").write_text(json.dumps(header))


# --- encoders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hidden_size", 1 << 20),
        ("hidden_size", 64),
        ("intermediate_size", 1 << 40),
        ("num_hidden_layers", 10**9),
        ("num_hidden_layers", 0),
        ("num_attention_heads", 3),
        ("vocab_size", 1 << 60),
        ("max_position_embeddings", 1 << 40),
        ("type_vocab_size", -1),
        ("layer_norm_eps", -1.0),
        ("hidden_act", "exec"),
        ("pad_token_id", 10**9),
    ],
)
def test_an_absurd_configuration_is_refused_by_name(field: str, value: object, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    _put(folder, "config.json", json.dumps(config | {field: value}).encode())
    named = "padding" if field == "pad_token_id" else field
    with pytest.raises(CheckpointError, match=rf"config\.json .*{named}"):
        load_encoder(folder)


@pytest.mark.parametrize(("field", "value"), [("intermediate_size", 1 << 16), ("num_hidden_layers", 64)])
def test_a_network_larger_than_its_weights_is_refused_before_it_is_made(
    field: str, value: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    _put(folder, "config.json", json.dumps(config | {field: value}).encode())
    monkeypatch.setattr("prectr.model.text.encoder.artifact.RelevanceEncoder", None)
    with pytest.raises(CheckpointError, match=r"weights that do not match its config\.json"):
        load_encoder(folder)


@pytest.mark.parametrize("name", ["config.json", "relevance.json"])
def test_nesting_without_end_is_an_error_of_the_file(name: str, folder: Path) -> None:
    content = json.loads((folder / name).read_bytes()) | {"more": 0, "provenance": {"more": 0}}
    _put(folder, "config.json", (folder / "config.json").read_bytes())
    nested = json.dumps(content).replace('"more": 0', f'"more": {NESTED}').encode()
    if name == "config.json":
        _put(folder, name, nested)
    else:
        (folder / name).write_bytes(nested)
    with pytest.raises(CheckpointError, match=f"{name} is .*recursion"):
        load_encoder(folder)


def _filled(value: float) -> Callable[[Tensor], Tensor]:
    return lambda tensor: torch.full_like(tensor, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[:1], r"float32\[1\], not float32\[4\]"),
        (lambda t: t.unsqueeze(0), r"float32\[1, 4\], not float32\[4\]"),
        (lambda t: t.double(), r"float64\[4\], not"),
        (lambda t: t.long(), r"int64\[4\], not"),
        (_filled(torch.nan), "holds nan"),
        (_filled(-torch.inf), "holds -inf"),
    ],
)
def test_a_weight_that_does_not_fit_is_named(change: Callable[[Tensor], Tensor], message: str, folder: Path) -> None:
    heads = load((folder / "relevance.safetensors").read_bytes())
    _put(folder, "relevance.safetensors", save(heads | {"levels.bias": change(heads["levels.bias"]).contiguous()}))
    with pytest.raises(CheckpointError, match=f"do not match its config.json: levels.bias .*{message}"):
        load_encoder(folder)


@pytest.mark.parametrize("tokens", [3, 1 << 20, -1, 200])
def test_more_tokens_than_there_are_positions_are_refused(tokens: int, folder: Path) -> None:
    header = json.loads((folder / "relevance.json").read_bytes())
    (folder / "relevance.json").write_text(json.dumps(header | {"max_tokens": tokens}))
    with pytest.raises(CheckpointError, match=r"max_tokens|48 positions for pairs of 200 tokens"):
        load_encoder(folder)


def test_a_token_without_an_embedding_is_refused(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_bytes())
    content["model"]["vocab"]["title"] = 10**6
    Tokenizer.from_str(json.dumps(content))
    _put(folder, "tokenizer.json", json.dumps(content).encode())
    with pytest.raises(CheckpointError, match=r"token with the id 1000000, and \d+ tokens"):
        load_encoder(folder)


def test_pairs_that_unpack_to_more_than_memory_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graded, "_MAX_BYTES", 1 << 20)
    _put(folder, "pairs.jsonl.gz", gzip.compress(b"\n" * (1 << 22)))
    with pytest.raises(CheckpointError, match=r"pairs\.jsonl\.gz is corrupt: it holds more than 1,048,576 bytes"):
        load_encoder(folder)


def test_a_file_larger_than_memory_is_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 20_000)
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read: it has .* GiB of memory"):
        load_encoder(folder)


# --- teachers ---------------------------------------------------------------------------------------------------------


def _with_code(folder: Path, model_type: str) -> Path:
    """A classifier whose configuration asks for code beside it, which leaves a file when it runs."""
    save_classifier(folder, outputs=4)
    config = json.loads((folder / "config.json").read_bytes())
    classes = {name: f"code.{name}" for name in ("AutoConfig", "AutoModelForSequenceClassification")}
    config |= {"model_type": model_type, "auto_map": classes}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_bytes())
    tokenizer["auto_map"] = {"AutoTokenizer": ["code.AutoTokenizer", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (folder / "code.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    return folder


@pytest.mark.parametrize("model_type", ["bert", "unheard-of"])
def test_label_neither_runs_a_folders_code_nor_asks_whether_to(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A type that transformers knows is opened by its own code; another is refused."""
    teacher = _with_code(tmp_path / "teacher", model_type)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"query": "usb", "title": "usb hub red"}\n')
    arguments = ["label", str(pairs), "--teacher", str(teacher), "--out", str(tmp_path / "out"), "--device", "cpu"]
    result = CliRunner().invoke(app, arguments, input="y\n" * 20)
    assert not (teacher / "ran").exists()
    assert "[y/N]" not in result.output
    if model_type == "bert":
        assert result.exit_code == 0, result.output
    else:
        assert isinstance(result.exception, UsageError)
        assert "is not a model that transformers knows" in str(result.exception)


def test_a_teacher_whose_weights_are_a_pickle_is_refused(tmp_path: Path) -> None:
    teacher = save_classifier(tmp_path / "teacher", outputs=4)
    (teacher / "model.safetensors").rename(teacher / "other.safetensors")
    torch.save({}, teacher / "pytorch_model.bin")
    with pytest.raises(UsageError, match="cannot be opened as a model"):
        open_teacher(teacher, CPU)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 1 << 16, "intermediate_size": 1 << 22}, "GiB of memory, and .* are available"),
        ({"num_hidden_layers": 10**9}, "1,000,000,000 layers"),
        ({"more": 0}, "is not a model that transformers knows: .*recursion"),
    ],
)
def test_an_absurd_teacher_is_refused_before_it_is_made(changes: dict[str, int], message: str, tmp_path: Path) -> None:
    teacher = save_classifier(tmp_path / "teacher", outputs=4)
    config = json.dumps(json.loads((teacher / "config.json").read_bytes()) | changes)
    (teacher / "config.json").write_text(config.replace('"more": 0', f'"more": {NESTED}'))
    with pytest.raises(UsageError, match=message):
        open_teacher(teacher, CPU)


def test_a_line_of_pairs_nested_without_end_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(f'{{"query": "a", "more": {NESTED}}}\n')
    with pytest.raises(InputError, match="line 1 is not a pair"):
        graded.read_pairs(path)
