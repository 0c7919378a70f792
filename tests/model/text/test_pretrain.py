"""Pre-training of the encoder: what it learns, when it stops, and that the same seed gives the same encoder."""

import dataclasses
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from prectr.model.config import PretrainConfig
from prectr.model.text.encoder import pretrain as pretrain_module
from prectr.model.text.encoder.artifact import load_encoder
from prectr.model.text.encoder.graded import GradedPair, read_graded, read_pairs
from prectr.model.text.encoder.holdout import split_holdout
from prectr.model.text.encoder.length_bucketing import length_bucketed_batches, length_sorted_batches
from prectr.model.text.encoder.network import EncoderOutput, RelevanceEncoder, make_encoder
from prectr.model.text.encoder.pretrain import predict_level_logits, pretrain
from prectr.model.text.encoder.tokens import PairTokenizer
from prectr.model.text.encoder.vocabulary import train_vocabulary
from prectr.model.text.teacher.distillation import distillation_loss, init_from_vectors, reduce_vectors, vector_loss
from prectr.model.text.teacher.labels import FORMAT, LabelManifest, SoftLabels, texts_of
from prectr.ops.cli.main import app
from prectr.state.errors import InputError, TrainingError, UsageError
from prectr.stream.simulator.chorus import graded_products
from tests.kit.models.teachers import PAIRS

QUICK = PretrainConfig(vocab_size=200, batch_size=8, tune_epochs=12, distil_epochs=12, held_out=0.0, tune_lr=2e-3)


def graded_by_words() -> list[GradedPair]:
    """Level 4 where every word of the query is in the title, 3 for half of them, else 1."""
    graded = []
    for query, title in PAIRS:
        share = np.mean([word in title.split() for word in query.split()])
        graded.append(GradedPair(query, title, 4 if share == 1 else 3 if share > 0 else 1))
    return graded


@pytest.fixture(autouse=True)
def one_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders of one layer: what is tested does not depend on the depth."""

    def shallow(tokenizer: PairTokenizer, seed: int) -> RelevanceEncoder:
        return make_encoder(tokenizer, seed, layers=1)

    monkeypatch.setattr(pretrain_module, "make_encoder", shallow)


def soft_labels(log_levels: NDArray[np.float32], *, vectors: bool = False) -> SoftLabels:
    texts = {text: place for place, text in enumerate(texts_of(PAIRS))} if vectors else {}
    drawn = np.random.default_rng(1).normal(size=(len(texts), 40)).astype(np.float32)
    manifest = LabelManifest(format=FORMAT, teacher={"model": "made up"}, pairs=len(PAIRS), pairs_sha256="", part=9)
    return SoftLabels(log_levels, texts, drawn, manifest)


def test_the_same_texts_give_the_same_vocabulary() -> None:
    texts = [f"{pair.title} {pair.query}" for pair in graded_products()[:600]]
    one, two = (train_vocabulary(texts, size=1000) for _ in range(2))
    assert one.to_str() == two.to_str()
    assert one.get_vocab_size() == 1000
    assert one.encode("16GB", add_special_tokens=False).tokens == one.encode("16 gb", add_special_tokens=False).tokens


def test_distillation_against_a_hand_calculation() -> None:
    student, teacher = torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.0, 2.0]]).log_softmax(dim=1)
    p = np.exp(np.array([0, 0, 0, 1.0])) / np.exp(np.array([0, 0, 0, 1.0])).sum()
    q = np.exp(np.array([0.5, 0, 0, 0])) / np.exp(np.array([0.5, 0, 0, 0])).sum()
    assert float(distillation_loss(student, teacher, 2.0)) == pytest.approx(4 * (p * np.log(p / q)).sum(), rel=1e-5)
    assert float(distillation_loss(teacher, teacher, 2.0)) == pytest.approx(0.0, abs=1e-6)


def test_vectors_that_point_the_same_way_cost_nothing_and_opposite_ones_two() -> None:
    one = torch.nn.functional.normalize(torch.randn(3, 32, generator=torch.Generator().manual_seed(1)))
    same = EncoderOutput(torch.zeros(3, 128), torch.zeros(3, 4), one, one)
    assert float(vector_loss(same, 2 * one, 7 * one)) == pytest.approx(0.0, abs=1e-6)
    assert float(vector_loss(same, one, -one)) == pytest.approx(1.0, abs=1e-6)
    assert float(vector_loss(same, -one, -one)) == pytest.approx(2.0, abs=1e-6)


def test_reduced_vectors_keep_the_cosines_of_what_lies_in_few_directions() -> None:
    rng = np.random.default_rng(3)
    vectors = (rng.normal(size=(50, 4)) @ rng.normal(size=(4, 40))).astype(np.float32)
    reduced = reduce_vectors(vectors, 6)
    assert reduced.shape == (50, 6)
    np.testing.assert_allclose(reduced @ reduced.T, vectors @ vectors.T, atol=1e-3)
    assert reduce_vectors(vectors[:, :3], 6).shape == (50, 6)


def test_words_that_mean_alike_start_alike() -> None:
    vectors = np.random.default_rng(3).normal(size=(30, 40)).astype(np.float32)
    vectors[1] = vectors[0]
    texts = {f"word{place}": place for place in range(30)}
    embeddings = torch.zeros(12, 16)
    started = init_from_vectors(embeddings, {"word0": 5, "word1": 6, "word2": 7, "##x": 8}, texts, vectors)
    assert started == 3
    torch.testing.assert_close(embeddings[5], embeddings[6])
    assert not torch.allclose(embeddings[5], embeddings[7], atol=1e-3)
    assert embeddings[8].abs().sum() == 0


def test_every_pair_is_in_one_batch_and_batches_are_of_like_length() -> None:
    lengths = np.random.default_rng(1).integers(4, 48, size=1000)
    batches = length_bucketed_batches(lengths, 16, np.random.default_rng(2))
    assert sorted(np.concatenate(batches).tolist()) == list(range(1000))
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    assert padded < 1.1 * lengths.sum()
    longest_first = list(length_sorted_batches(lengths, 16))
    assert lengths[longest_first[0][0]] == lengths.max()
    assert sorted(np.concatenate(longest_first).tolist()) == list(range(1000))


def test_a_held_out_query_is_on_one_side_only() -> None:
    learned, aside = split_holdout(graded_by_words(), 0.25, seed=1)
    assert len({pair.query for pair in aside}) == 1
    assert {pair.query for pair in aside}.isdisjoint(pair.query for pair in learned)
    assert len(learned) + len(aside) == len(PAIRS)
    assert split_holdout(graded_by_words(), 0.25, seed=1) == (learned, aside)
    assert split_holdout(graded_by_words(), 0.0, seed=1)[1] == []
    with pytest.raises(UsageError, match="cannot be held out"):
        split_holdout(graded_by_words()[:6], 0.1, seed=1)


def test_fine_tuning_learns_the_grades() -> None:
    graded = graded_by_words()
    made = pretrain(graded, dataclasses.replace(QUICK, tune_epochs=40, mask_probability=0.0))
    found = predict_level_logits(made.network, made.tokenizer, [pair.pair for pair in graded]).argmax(dim=1) + 1
    assert found.tolist() == [pair.level for pair in graded]
    assert not made.network.training


def test_distillation_learns_what_the_teacher_says_and_tuning_changes_it() -> None:
    levels = np.log(np.full((len(PAIRS), 4), 0.1, dtype=np.float32))
    levels[np.arange(len(PAIRS)), np.arange(len(PAIRS)) % 4] = np.log(0.7)
    config = dataclasses.replace(QUICK, distil_epochs=60, tune_epochs=1, tune_lr=1e-9, distil_lr=3e-3)
    labels = soft_labels(levels)
    made = pretrain(graded_by_words(), config, unlabelled=PAIRS, labels=labels)
    found = predict_level_logits(made.network, made.tokenizer, PAIRS).argmax(dim=1).numpy()
    assert (found == np.arange(len(PAIRS)) % 4).mean() > 0.9
    losses = [row.loss for row in made.epochs if row.phase == "distil"]
    assert losses[-1] < 0.5 * losses[0]


def test_the_vectors_of_the_labels_are_learned_too() -> None:
    labels = soft_labels(np.log(np.full((len(PAIRS), 4), 0.25, dtype=np.float32)), vectors=True)
    config = dataclasses.replace(QUICK, distil_epochs=40, tune_epochs=1, tune_lr=1e-9, distil_lr=3e-3)
    made = pretrain(graded_by_words(), config, unlabelled=PAIRS, labels=labels)
    with torch.inference_mode():
        encoded = made.network(made.tokenizer.encode(PAIRS))
    reduced = torch.from_numpy(reduce_vectors(labels.vectors, 32))
    item = reduced[[labels.text_index[title] for _, title in PAIRS]]
    assert float(torch.cosine_similarity(encoded.item_vector, item).mean()) > 0.8


def test_the_same_seed_gives_the_same_encoder_and_another_another() -> None:
    labels = soft_labels(np.log(np.full((len(PAIRS), 4), 0.25, dtype=np.float32)), vectors=True)
    config = dataclasses.replace(QUICK, distil_epochs=2, tune_epochs=2)
    one, two = (pretrain(graded_by_words(), config, unlabelled=PAIRS, labels=labels) for _ in range(2))
    assert one.epochs == two.epochs
    same = zip(one.network.state_dict().values(), two.network.state_dict().values(), strict=True)
    assert all(torch.equal(left, right) for left, right in same)
    other = pretrain(graded_by_words(), dataclasses.replace(config, seed=1), unlabelled=PAIRS, labels=labels)
    assert other.epochs != one.epochs


def test_it_stops_when_the_held_out_queries_gain_no_more_and_keeps_the_best_pass() -> None:
    graded = graded_by_words()
    config = dataclasses.replace(QUICK, held_out=0.25, tune_epochs=60, patience=3, tune_lr=1e-2, mask_probability=0.0)
    made = pretrain(graded, config)
    held = [row.held_out_loss for row in made.epochs if row.held_out_loss is not None]
    assert made.best_epoch is not None
    assert held[made.best_epoch - 1] == min(held)
    assert len(held) == made.best_epoch + 3 < 60
    _, aside = split_holdout(graded, 0.25, seed=0)
    logits = predict_level_logits(made.network, made.tokenizer, [pair.pair for pair in aside])
    kept = torch.nn.functional.cross_entropy(logits, torch.tensor([pair.level - 1 for pair in aside]))
    assert float(kept) == pytest.approx(min(held), rel=1e-5)


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched() -> None:
    levels = np.zeros((len(PAIRS), 4), dtype=np.float32)
    levels[3] = np.nan
    with pytest.raises(TrainingError, match="the loss of distillation is nan"):
        pretrain(graded_by_words(), QUICK, unlabelled=PAIRS, labels=soft_labels(levels))


def test_labels_of_another_number_of_pairs_are_refused() -> None:
    labels = soft_labels(np.zeros((5, 4), dtype=np.float32))
    with pytest.raises(UsageError, match="labels of 5 pairs and 24 pairs"):
        pretrain(graded_by_words(), QUICK, unlabelled=PAIRS, labels=labels)


def _write(path: Path, lines: list[dict[str, object]]) -> Path:
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def test_grades_and_levels_are_read_alike(tmp_path: Path) -> None:
    lines: list[dict[str, object]] = [
        {"query": "usb", "title": "hub", "grade": 3, "price": 4},
        {"query": "usb", "level": 1},
    ]
    expected = [GradedPair("usb", "hub", 4), GradedPair("usb", "", 1)]
    assert read_graded(_write(tmp_path / "g.jsonl", lines)) == expected
    assert read_graded(_write(tmp_path / "g.jsonl.gz", lines)) == expected
    assert read_pairs(tmp_path / "g.jsonl.gz") == [("usb", "hub"), ("usb", "")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"query": "usb", "title": "hub"}', "line 2 has no level"),
        ('{"query": "usb", "title": "hub", "level": 5}', "line 2 has level 5"),
        ('{"query": "usb", "title": "hub", "grade": 4}', "line 2 has grade 4"),
        ('{"title": "hub", "level": 1}', "line 2 is not a pair"),
        ('{"query": "usb", "title"', "line 2 is not a pair"),
        ("\udcff", "line 2 is not a pair"),
    ],
)
def test_a_line_that_is_no_graded_pair_is_named(tmp_path: Path, line: str, message: str) -> None:
    content = '{"query": "usb", "title": "", "level": 1}\n' + line + "\n"
    (tmp_path / "graded.jsonl").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=message):
        read_graded(tmp_path / "graded.jsonl")


def test_a_file_without_pairs_is_reported(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="holds no graded pairs"):
        read_graded(tmp_path / "empty.jsonl")
    with pytest.raises(InputError, match="holds no pairs"):
        read_pairs(tmp_path / "empty.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        read_pairs(tmp_path / "nowhere.jsonl")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"query": "usb"}\n' * 500)[:30])
    with pytest.raises(InputError, match="is corrupt"):
        read_pairs(tmp_path / "cut.jsonl.gz")


def test_the_command_makes_an_encoder_that_opens(tmp_path: Path) -> None:
    graded = [{"query": pair.query, "title": pair.title, "level": pair.level} for pair in graded_by_words()]
    path, out = _write(tmp_path / "graded.jsonl", graded), tmp_path / "encoder"
    flags = ["--out", str(out), "--epochs", "2", "--held-out", "0.25", "--vocabulary", "200", "--device", "cpu"]
    done = CliRunner().invoke(app, ["pretrain", str(path), *flags, "--json", str(tmp_path / "done.json")])
    assert done.exit_code == 0, done.output
    report, found = json.loads((tmp_path / "done.json").read_bytes()), load_encoder(out)
    assert report["sha256"] == found.sha256
    assert report["graded_pairs"] == len(found.pairs) == 24
    assert [row["phase"] for row in report["epochs"]] == ["tune", "tune"]
    assert found.header.provenance["settings"]["tune_epochs"] == 2
    again = CliRunner().invoke(app, ["pretrain", str(path), *flags])
    assert "already contains an encoder" in str(again.exception)


def test_labels_without_their_pairs_are_wrong_use(tmp_path: Path) -> None:
    path = _write(tmp_path / "graded.jsonl", [{"query": "usb", "level": 1}])
    flags = ["--labels", str(tmp_path), "--out", str(tmp_path / "encoder")]
    done = CliRunner().invoke(app, ["pretrain", str(path), *flags])
    assert isinstance(done.exception, UsageError)
    assert "--labels and --pairs are required together" in str(done.exception)
