"""`bench.relevance`: metrics against scikit-learn, folds, and synthetic queries."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score, roc_auc_score

from bench.relevance import benchmark as relevance
from bench.relevance import vector_cache
from bench.relevance.benchmark import assign_folds, bm25_scores, expected_level, with_brand_and_description
from bench.relevance.bm25 import Bm25
from bench.relevance.chorus_encoder import CPU, EncoderPipeline, chorus_graded_pairs, exclude_queries
from bench.relevance.chorus_queries import Product, TextVectors, pair_with_titles, synthetic_queries, tokenize
from bench.relevance.joint_training import encoder_after_joint_training
from bench.relevance.scores import auc_difference, group_by_query, ndcg_at_10, score_relevance
from bench.relevance.vector_cache import CachedSentenceEncoder
from prectr.model.text.encoder.artifact import load_encoder
from prectr.model.text.encoder.network import RelevanceEncoder
from prectr.model.text.encoder.pretrain import predict_level_logits
from prectr.model.text.teacher.sentence_encoder import SentenceEncoder
from prectr.model.training.trainer import Trainer
from prectr.stream.events.contract import Item, ResultPage
from prectr.stream.records import encode_record
from tests.kit.models.examples import random_examples, small_config
from tests.kit.models.teachers import save_classifier

QUERIES = [f"query {place % 7}" for place in range(200)]


@pytest.fixture
def grades() -> np.ndarray:
    return np.random.default_rng(1).integers(4, size=200)


@pytest.fixture
def scores(grades: np.ndarray) -> np.ndarray:
    return grades + np.random.default_rng(2).normal(scale=2, size=200)


def test_metrics_agree_with_scikit_learn(scores: np.ndarray, grades: np.ndarray) -> None:
    found = score_relevance(scores, grades, QUERIES)
    ends = (grades == 0) | (grades == 3)
    assert found.auc.value == pytest.approx(roc_auc_score(grades[ends] == 3, scores[ends]))
    names = np.array(QUERIES)
    within = [
        roc_auc_score(grades[ends & (names == q)] == 3, scores[ends & (names == q)]) for q in sorted(set(QUERIES))
    ]
    assert found.within_query.value == pytest.approx(np.mean(within))
    gains = [ndcg_score([2.0 ** grades[names == q] - 1], [scores[names == q]], k=10) for q in sorted(set(QUERIES))]
    assert found.ndcg.value == pytest.approx(np.mean(gains))
    for figure in (found.auc, found.within_query, found.ndcg):
        assert figure.low < figure.value < figure.high


def test_a_query_without_a_relevant_product_has_no_ndcg() -> None:
    assert np.isnan(ndcg_at_10(np.array([2.0, 1.0]), np.array([0, 0])))
    assert ndcg_at_10(np.array([1.0, 2.0]), np.array([3, 0])) == pytest.approx(1 / np.log2(3))


def test_scores_with_equal_ranking_have_zero_difference(scores: np.ndarray, grades: np.ndarray) -> None:
    same = auc_difference(scores, 3 * scores + 1, grades, QUERIES)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    assert auc_difference(grades.astype(float), scores, grades, QUERIES).low > 0


def test_groups_are_the_pairs_of_each_query() -> None:
    groups = group_by_query(["b", "a", "b", "c"])
    assert [places.tolist() for places in groups] == [[1], [0, 2], [3]]


def test_bm25_by_hand() -> None:
    index = Bm25([["red", "hat"], ["red", "red", "socks", "wool"]])
    found = index.scores(["red", "wool", "unheard"])
    common, rare = np.log1p(0.5 / 2.5), np.log1p(1.5 / 1.5)
    short, long = 1.2 * (0.25 + 0.75 * 2 / 3), 1.2 * (0.25 + 0.75 * 4 / 3)
    expected = [common * 2.2 / (1 + short), common * 2 * 2.2 / (2 + long) + rare * 2.2 / (1 + long)]
    np.testing.assert_allclose(found, expected)


def test_bm25_of_chorus_is_near_the_published_value() -> None:
    graded = chorus_graded_pairs()
    found = score_relevance(
        bm25_scores([pair.pair for pair in graded]),
        np.array([pair.level - 1 for pair in graded]),
        [pair.query for pair in graded],
    )
    assert found.auc.value == pytest.approx(0.811, abs=0.02)
    assert len(graded) == 3668


def test_a_fold_keeps_a_query_whole_and_folds_are_of_one_size() -> None:
    placed = assign_folds(chorus_graded_pairs(), 5, seed=1)
    assert np.bincount(list(placed.values())).tolist() == [27] * 5
    assert placed == assign_folds(chorus_graded_pairs(), 5, seed=1) != assign_folds(chorus_graded_pairs(), 5, seed=2)


def test_held_out_query_is_in_no_distillation_set_in_any_form() -> None:
    pairs = [("laptop bags", "x"), ("Bag laptop", "x"), ("laptop", "x"), ("red laptop bag", "x")]
    assert exclude_queries(pairs, ["laptop bag"]) == [("laptop", "x"), ("red laptop bag", "x")]


def test_expected_level_of_a_certain_prediction_is_that_level() -> None:
    sure = np.log(np.maximum(np.eye(4, dtype=np.float32), 1e-9))
    np.testing.assert_allclose(expected_level(sure), [1, 2, 3, 4], atol=1e-6)


PRODUCTS = [
    Product(f"{brand} {thing} {size} cm", brand)
    for brand in ("Acme", "Bolt", "Corp")
    for thing in ("desk lamp", "wall mount", "usb cable")
    for size in range(3, 9)
]


def test_synthetic_queries_use_title_words_and_depend_on_the_seed_alone() -> None:
    found = synthetic_queries(PRODUCTS, 40, np.random.default_rng(1), ["lantern"])
    assert found == synthetic_queries(PRODUCTS, 40, np.random.default_rng(1), ["lantern"])
    assert found[0] == "lantern"
    assert len(found) == len(set(found)) > 30
    words = {word for product in PRODUCTS for word in tokenize(product.title)}
    plain = [query for query in found if set(query.split()) <= words]
    assert len(plain) > len(found) / 2


def test_query_is_paired_with_matches_near_misses_and_random_titles() -> None:
    titles = [product.title for product in PRODUCTS]
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(len(titles), 8)).astype(np.float32)
    texts = TextVectors(titles, [product.brand for product in PRODUCTS], vectors)
    queries = ["usb cable", "nothing of the kind"]
    pairs = pair_with_titles(queries, vectors[:2], texts, rng)
    by_query = {query: [title for asked, title in pairs if asked == query] for query in queries}
    assert [len(found) for found in by_query.values()] == [6, 6]
    assert sum("usb cable" in title for title in by_query["usb cable"]) >= 2
    assert len(set(pairs)) == len(pairs)


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupted_run_resumes_from_its_finished_folds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    graded = chorus_graded_pairs()
    placed = assign_folds(graded, 3, seed=1)
    for number in range(3):
        levels = [float(pair.level) for pair in graded if placed[pair.query] == number]
        (tmp_path / f"fold-{number}").mkdir()
        for name, sign in (("teacher", 1.0), ("student", -1.0), (relevance.AFTER_JOINT_TRAINING, 0.0)):
            (tmp_path / f"fold-{number}" / f"{name.replace(' ', '-')}.json").write_text(
                json.dumps([sign * level for level in levels])
            )
    monkeypatch.setattr(relevance, "minilm_cosines", lambda shop, pairs: np.zeros(len(pairs)))
    monkeypatch.setattr(relevance, "read_products", list)
    (tmp_path / "warm").mkdir()
    # Threads in place of spawned processes, which would spend half a minute on imports.
    monkeypatch.setattr(relevance, "ProcessPoolExecutor", lambda jobs, *_, **__: ThreadPoolExecutor(jobs))
    result = relevance.measure_all(EncoderPipeline(tmp_path, queries=10, seed=1), folds=3, jobs=jobs)
    assert result["rows"]["teacher"]["auc"]["value"] == 1.0
    assert result["rows"]["student"]["auc"]["value"] == 0.0
    assert result["rows"][relevance.AFTER_JOINT_TRAINING]["auc"]["value"] == 0.5
    assert result["student_less_teacher_auc"]["value"] == -1.0
    assert result["joint_less_student_auc"]["value"] == 0.5


def test_brand_and_description_are_added_where_known() -> None:
    shoes = [Product("red shoe", "acme", "for trails"), Product("blue shoe", desc="for roads")]
    pairs = [("shoe", "blue shoe"), ("acme", "hat"), ("shoe", "red shoe"), ("scarf", "scarf")]
    assert with_brand_and_description(pairs, [*shoes, Product("hat", "acme")]) == [
        ("shoe", "blue shoe for roads"),
        ("acme", "acme hat"),
        ("shoe", "acme red shoe for trails"),
        ("scarf", "scarf"),
    ]


def test_encoder_after_joint_training_is_that_of_the_trainer() -> None:
    config = small_config(
        model="prectr-v2", encoder_lr=0.01, encoder_share=1.0, exposure="off", exposed_pairs_bits=1 << 20
    )
    examples = random_examples(30)
    trainer = Trainer(config)
    trainer.consume(examples, 0)
    trainer.flush()
    network = encoder_after_joint_training(config, examples)
    folder = load_encoder(Path(config.encoder))
    titles = [f"title {place}" for place in range(20)]
    unseen = [Item(f"unseen {place}", title, position=place) for place, title in enumerate(titles, start=1)]
    page = ResultPage("r", "nobody", examples[-1].query, examples[-1].ts, unseen)
    example = msgspec.structs.replace(
        examples[-1], page=msgspec.Raw(encode_record(page)), levels=bytes([1] * 20), labels=bytes(20)
    )

    def levels_of(by: RelevanceEncoder) -> np.ndarray:
        pairs = [(page.query, title) for title in titles]
        return torch.softmax(predict_level_logits(by, folder.tokenizer, pairs), dim=1).numpy()

    np.testing.assert_allclose(levels_of(network), trainer.explain([example]).levels, atol=1e-5)
    assert np.abs(levels_of(network) - levels_of(folder.network)).max() > 0.01


def test_a_text_is_encoded_once_and_its_vector_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_classifier(tmp_path / "encoder", outputs=4)
    texts = ["wool hat", "usb cable", "wool hat", "cotton", "2 m"]
    expected = SentenceEncoder(folder, CPU).encode(texts)
    read: list[str] = []
    whole = SentenceEncoder.encode

    def reading(self: SentenceEncoder, texts: list[str]) -> np.ndarray:
        read.extend(texts)
        return whole(self, texts)

    monkeypatch.setattr(SentenceEncoder, "encode", reading)
    monkeypatch.setattr(vector_cache, "_BLOCK", 2)
    progress: list[int] = []
    np.testing.assert_allclose(
        CachedSentenceEncoder(folder, CPU, tmp_path / "cache").encode(texts[:3]), expected[:3], atol=1e-6
    )
    again = CachedSentenceEncoder(folder, CPU, tmp_path / "cache").encode(texts, progress.append)
    np.testing.assert_allclose(again, expected, atol=1e-6)
    assert read == ["wool hat", "usb cable", "cotton", "2 m"]
    assert progress == [5]


def test_vectors_of_another_encoder_are_not_reused(tmp_path: Path) -> None:
    first, second = (save_classifier(tmp_path / name, outputs=outputs) for name, outputs in (("a", 4), ("b", 3)))
    found = [CachedSentenceEncoder(folder, CPU, tmp_path / "cache").encode(["wool hat"]) for folder in (first, second)]
    np.testing.assert_allclose(found[1], SentenceEncoder(second, CPU).encode(["wool hat"]), atol=1e-6)
    assert len(list((tmp_path / "cache").iterdir())) == 2
