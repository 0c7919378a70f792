"""The encoder: tokens of pairs, the network over them, and the folder that holds both."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor

from prectr.model.text.encoder.artifact import GradedPair, load_encoder, save_encoder, shipped_folder
from prectr.model.text.encoder.network import RelevanceEncoder, count_parameters, make_encoder, token_matches
from prectr.model.text.encoder.tokens import MAX_TOKENS, Pair, PairTokenizer
from prectr.model.text.encoder.vocabulary import train_vocabulary
from prectr.state.errors import CheckpointError

TITLES = ("red wool socks", "blue wool hat", "red cotton hat", "usb cable 2 m", "wool socks for home", "usb hub red")
PAIRS: list[Pair] = [("wool hat", title) for title in TITLES] + [("usb", title) for title in TITLES]


@pytest.fixture(scope="module")
def tokenizer() -> PairTokenizer:
    return PairTokenizer(train_vocabulary([*TITLES, *TITLES, "wool hat", "usb"], size=200))


@pytest.fixture(scope="module")
def network(tokenizer: PairTokenizer) -> RelevanceEncoder:
    return make_encoder(tokenizer, seed=5, layers=1)


def test_a_pair_reads_cls_query_sep_title_sep(tokenizer: PairTokenizer) -> None:
    tokens = tokenizer.encode([("wool hat", "red wool socks"), ("usb", "")])
    words = [tokenizer.tokenizer.id_to_token(place) for place in tokens.input_ids[0].tolist()]
    assert words == ["[CLS]", "wool", "hat", "[SEP]", "red", "wool", "socks", "[SEP]"]
    assert tokens.token_type_ids[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert tokens.attention_mask.sum(dim=1).tolist() == [8, 4]
    assert tokens.token_type_ids[1].tolist() == [0, 0, 0, 1, 0, 0, 0, 0]
    marked = [word for word, mark in zip(words, token_matches(tokens)[0].tolist(), strict=True) if mark]
    assert marked == ["wool", "[SEP]", "wool", "[SEP]"]


@pytest.mark.parametrize(
    "pair",
    [
        ("", ""),
        ("usb", ""),
        ("usb", "🎉🎉"),
        ("🎉", "🎉"),
        ("usb", "wool " * 400),
        ("usb", "x" * 2000),
        ("wool " * 400, "red wool socks"),
        ("usb", "\0\u200b\ud800"),
    ],
)
def test_every_text_has_a_sensible_score(tokenizer: PairTokenizer, network: RelevanceEncoder, pair: Pair) -> None:
    tokens = tokenizer.encode([pair])
    assert tokens.input_ids.shape[1] <= MAX_TOKENS
    encoded = network(tokens)
    assert all(bool(torch.isfinite(part).all()) for part in encoded)
    assert encoded.query_vector.norm(dim=1).item() == pytest.approx(1.0, abs=1e-5)


def test_a_long_title_leaves_the_query_whole_and_a_long_query_leaves_the_title_a_third(
    tokenizer: PairTokenizer,
) -> None:
    long_title = tokenizer.encode([("wool hat", "red " * 400)])
    assert int((long_title.token_type_ids == 0).sum()) == 4
    assert int(long_title.attention_mask.sum()) == MAX_TOKENS
    long_query = tokenizer.encode([("red " * 400, "wool " * 400)])
    assert int((long_query.token_type_ids == 1).sum()) == (MAX_TOKENS - 3) // 3 + 1


def test_cached_and_evicted_texts_tokenize_the_same(tokenizer: PairTokenizer) -> None:
    small = PairTokenizer(tokenizer.tokenizer, cache_size=2)
    for _ in range(3):
        again, whole = small.encode(PAIRS), tokenizer.encode(PAIRS)
        assert torch.equal(again.input_ids, whole.input_ids)
        assert torch.equal(again.token_type_ids, whole.token_type_ids)


def test_the_cache_of_tokens_is_bounded(tokenizer: PairTokenizer) -> None:
    small = PairTokenizer(tokenizer.tokenizer, cache_size=3)
    small.encode(PAIRS)
    small.encode(PAIRS[:1])
    assert len(small._cache) == 3


def test_padding_and_company_change_no_score(tokenizer: PairTokenizer, network: RelevanceEncoder) -> None:
    alone = network(tokenizer.encode([PAIRS[0]]))
    together = network(tokenizer.encode([PAIRS[0], ("wool hat", "red " * 40)]))
    for one, both in zip(alone, together, strict=True):
        torch.testing.assert_close(one[0], both[0], atol=1e-5, rtol=1e-4)


def test_states_and_their_gradients_are_those_of_the_library(tokenizer: PairTokenizer) -> None:
    network = make_encoder(tokenizer, seed=5)
    tokens = tokenizer.encode([*PAIRS, ("", ""), ("wool hat", "red " * 40)])
    assert not tokens.attention_mask.all()
    marked = tokens.token_type_ids + 2 * token_matches(tokens).long()
    theirs = network.bert(
        input_ids=tokens.input_ids, attention_mask=tokens.attention_mask.long(), token_type_ids=marked
    )
    expected = theirs.last_hidden_state * tokens.attention_mask.unsqueeze(2), theirs.pooler_output
    weight = torch.randn(expected[0].shape, generator=torch.Generator().manual_seed(3))
    gradients = []
    for hidden, pooled in (network.hidden_states(tokens), expected):
        torch.testing.assert_close(hidden, expected[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(pooled, expected[1], atol=1e-5, rtol=1e-4)
        network.zero_grad()
        ((hidden * weight).sum() + pooled.square().sum()).backward(retain_graph=True)
        gradients.append({name: each.grad for name, each in network.bert.named_parameters()})
    for name, of_library in gradients[1].items():
        torch.testing.assert_close(gradients[0][name], of_library, atol=1e-3, rtol=1e-3, msg=name)


def test_the_level_head_can_be_rerun(tokenizer: PairTokenizer, network: RelevanceEncoder) -> None:
    encoded = network(tokenizer.encode(PAIRS))
    assert torch.equal(network.level_logits(encoded.pair_embedding), encoded.level_logits)
    assert encoded.pair_embedding.shape == (12, 128)
    assert encoded.level_logits.shape == (12, 4)
    assert encoded.query_vector.shape == encoded.item_vector.shape == (12, 32)


def test_gradients_reach_every_parameter(tokenizer: PairTokenizer) -> None:
    network = make_encoder(tokenizer, seed=5, layers=1)
    encoded = network(tokenizer.encode(PAIRS))
    (encoded.level_logits.square().sum() + (encoded.query_vector * encoded.item_vector).sum()).backward()
    still = [name for name, parameter in network.named_parameters() if not _learns(parameter.grad)]
    assert still == []


def test_the_encoder_is_below_the_size_that_was_promised(tokenizer: PairTokenizer) -> None:
    network = make_encoder(tokenizer, seed=1)
    embeddings = network.bert.embeddings.word_embeddings.weight.numel()
    assert count_parameters(network) - embeddings + 8_000 * 128 < 2_200_000


def test_weights_depend_on_the_seed_alone(tokenizer: PairTokenizer) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one, two, other = (make_encoder(tokenizer, seed=seed, layers=1) for seed in (5, 5, 6))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(one.levels.weight, two.levels.weight)
    assert not torch.equal(one.levels.weight, other.levels.weight)


@pytest.fixture
def folder(tmp_path: Path, tokenizer: PairTokenizer, network: RelevanceEncoder) -> Path:
    pairs = [GradedPair("usb", "usb hub red", 4), GradedPair("wool hat", "", 1)]
    save_encoder(tmp_path / "encoder", network, tokenizer, pairs=pairs, provenance={"seed": 5})
    return tmp_path / "encoder"


def test_a_folder_gives_back_what_was_saved(folder: Path, tokenizer: PairTokenizer, network: RelevanceEncoder) -> None:
    found = load_encoder(folder)
    expected, actual = network(tokenizer.encode(PAIRS)), found.network(found.tokenizer.encode(PAIRS))
    assert all(torch.equal(one, other) for one, other in zip(expected, actual, strict=True))
    assert not found.network.training
    assert found.pairs == (GradedPair("usb", "usb hub red", 4), GradedPair("wool hat", "", 1))
    assert found.header.provenance == {"seed": 5}


def test_the_same_encoder_has_the_same_name_and_another_another(
    tmp_path: Path, folder: Path, tokenizer: PairTokenizer, network: RelevanceEncoder
) -> None:
    again = save_encoder(tmp_path / "again", network, tokenizer)
    other = save_encoder(tmp_path / "other", make_encoder(tokenizer, seed=6, layers=1), tokenizer)
    assert load_encoder(folder).sha256 == again == load_encoder(tmp_path / "again").sha256
    assert other != again


def test_half_precision_is_read_as_float32(tmp_path: Path, tokenizer: PairTokenizer, network: RelevanceEncoder) -> None:
    save_encoder(tmp_path / "half", network, tokenizer, half=True)
    found = load_encoder(tmp_path / "half").network
    assert {parameter.dtype for parameter in found.parameters()} == {torch.float32}
    torch.testing.assert_close(found.levels.weight, network.levels.weight, atol=1e-3, rtol=1e-3)


def test_transformers_opens_the_folder(
    tmp_path: Path, tokenizer: PairTokenizer, network: RelevanceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModel, AutoTokenizer

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    save_encoder(tmp_path / "half", network, tokenizer, half=True)
    model = AutoModel.from_pretrained(tmp_path / "half", attn_implementation="eager")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "half")("wool hat", "red wool socks", return_tensors="pt")
    ours = tokenizer.encode([("wool hat", "red wool socks")])
    assert model.dtype == torch.float32
    assert torch.equal(theirs["input_ids"], ours.input_ids)
    assert torch.equal(theirs["token_type_ids"], ours.token_type_ids)
    marked = ours.token_type_ids + 2 * token_matches(ours).long()
    states = model(input_ids=ours.input_ids, token_type_ids=marked).last_hidden_state
    torch.testing.assert_close(states, network.hidden_states(ours)[0], atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize("name", ["model.safetensors", "relevance.safetensors", "tokenizer.json", "config.json"])
def test_a_corrupt_or_missing_file_is_named(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name} is corrupt"):
        load_encoder(folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name} cannot be read"):
        load_encoder(folder)


def test_nested_files_are_named(folder: Path) -> None:
    nested = b"[" * 100_000 + b"]" * 100_000
    _put(folder, "config.json", b'{"x": ' + nested + b"}")
    with pytest.raises(CheckpointError, match=r"config\.json is not the configuration of an encoder.*recursion"):
        load_encoder(folder)
    (folder / "relevance.json").write_bytes(nested)
    with pytest.raises(CheckpointError, match=r"relevance\.json is corrupt"):
        load_encoder(folder)


def test_a_vocabulary_of_another_encoder_is_refused(folder: Path) -> None:
    small = train_vocabulary(["red hat"] * 2, size=20).to_str()
    _put(folder, "tokenizer.json", small.encode())
    with pytest.raises(CheckpointError, match="word embeddings"):
        load_encoder(folder)


def test_a_tokenizer_without_the_special_tokens_is_refused(folder: Path) -> None:
    from tokenizers.models import WordLevel

    _put(folder, "tokenizer.json", Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]")).to_str().encode())
    with pytest.raises(CheckpointError, match=r"lacks \[PAD\]"):
        load_encoder(folder)


def test_weights_of_another_shape_are_refused(folder: Path, tmp_path: Path, tokenizer: PairTokenizer) -> None:
    save_encoder(tmp_path / "deep", make_encoder(tokenizer, seed=1, layers=2), tokenizer)
    _put(folder, "model.safetensors", (tmp_path / "deep" / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="weights that do not match"):
        load_encoder(folder)


def test_a_folder_that_is_no_encoder_is_reported(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a folder"):
        load_encoder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="is not an encoder folder"):
        load_encoder(tmp_path / "empty")
    header = json.loads((folder / "relevance.json").read_bytes())
    shutil.copytree(folder, tmp_path / "newer")
    (tmp_path / "newer" / "relevance.json").write_text(json.dumps(header | {"format": 99}))
    with pytest.raises(CheckpointError, match="format 99"):
        load_encoder(tmp_path / "newer")
    (folder / "relevance.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"relevance.json is corrupt"):
        load_encoder(folder)


def _put(folder: Path, name: str, content: bytes) -> None:
    """Replace a file and vouch for it, so that only what it holds is wrong."""
    import hashlib

    (folder / name).write_bytes(content)
    header = json.loads((folder / "relevance.json").read_bytes())
    header["sha256"][name] = hashlib.sha256(content).hexdigest()
    (folder / "relevance.json").write_text(json.dumps(header))


def _learns(gradient: Tensor | None) -> bool:
    return gradient is not None and bool((gradient != 0).any())


def test_the_shipped_encoder_opens_is_small_and_knows_a_case_from_a_cable() -> None:
    found = load_encoder()
    assert found.network.levels.weight.dtype == torch.float32
    assert count_parameters(found.network) < 2_200_000
    assert sum(path.stat().st_size for path in shipped_folder().iterdir()) < 8_000_000
    assert len(found.pairs) == 3668
    pairs = [("phone case", "Case Logic mobile phone case Black"), ("phone case", "StarTech.com HDMI cable 2 m")]
    levels = torch.softmax(found.network(found.tokenizer.encode(pairs)).level_logits, dim=1) @ torch.arange(1.0, 5.0)
    assert (levels[0] - levels[1]).item() > 1
