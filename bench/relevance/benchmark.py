"""Relevance on the Chorus catalogue, by folds over queries: `python -m bench.relevance [--json FILE] [--folds 5]`.

Each fold has its own teacher, distillation set and student, none of which has seen a grade or a query of the fold;
MiniLM's cosine and BM25 are not trained. All read the title, the only text of an item in an event; MiniLM is also
scored with brand and description. The student is scored again after joint training: `prectr-v2` trains with it on a
simulated log, whose clicks depend on all grades, including the fold's, but which has no grades as labels. Intermediate
results stay in the work folder, so an interrupted run can be resumed.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from bench.provenance import command_line, machine, versions
from bench.relevance.bm25 import Bm25
from bench.relevance.chorus_encoder import CPU, LABEL_BATCH, EncoderPipeline, chorus_graded_pairs, exclude_queries
from bench.relevance.chorus_queries import Product, read_products, tokenize
from bench.relevance.joint_training import encoder_after_joint_training
from bench.relevance.log_examples import collect_examples
from bench.relevance.scores import Relevance, auc_difference, score_relevance
from prectr.model.config import PretrainConfig, TrainerConfig
from prectr.model.text.encoder.artifact import EncoderArtifact, load_encoder, save_encoder
from prectr.model.text.encoder.graded import GradedPair
from prectr.model.text.encoder.length_bucketing import length_sorted_batches
from prectr.model.text.encoder.network import RelevanceEncoder
from prectr.model.text.encoder.pretrain import predict_level_logits
from prectr.model.text.encoder.provenance import provenance_of
from prectr.model.text.encoder.tokens import Pair
from prectr.model.text.teacher.teacher import ClassifierTeacher
from prectr.ops.cli.console import progress_bar, set_up_logging

STUDENT_CONFIG: Final = PretrainConfig(held_out=0.0, tune_epochs=4, tune_lr=3e-4)
"""Settings of every student here and of the shipped encoder; chosen on fold 0 of another split."""

SYNTHETIC_QUERIES: Final = 17_000
"""Number of synthetic queries of the shipped encoder's distillation set, for about 100,000 pairs."""

AFTER_JOINT_TRAINING: Final = "student after joint training"
JOINT_PAGES: Final = 6_000
"""Pages of the log for joint training, as many as `prectr demo` has."""

DESCRIBED: Final = "minilm cosine, with brand and description"
_TRAINED_SYSTEMS: Final = ("teacher", "student", AFTER_JOINT_TRAINING)
_JOINT_CONFIG: Final = TrainerConfig(model="prectr-v2", level_source="inferred", batch_span=86_400.0, device="cpu")
_DIFFERENCES: Final = {
    "Student minus teacher": "student_less_teacher_auc",
    "Student minus MiniLM cosine": "student_less_minilm_auc",
    "After minus before joint training": "joint_less_student_auc",
}
_LEVELS: Final = np.arange(1, 5)


def assign_folds(graded: Sequence[GradedPair], folds: int, seed: int) -> dict[str, int]:
    """Assign each query to a fold, at random by the seed."""
    queries = sorted({pair.query for pair in graded})
    order = np.random.default_rng([seed, 9]).permutation(len(queries))
    return {queries[index]: number % folds for number, index in enumerate(order.tolist())}


def expected_level(log_levels: NDArray[np.float32]) -> NDArray[np.float64]:
    """Expected level, float64[n], from log-probabilities of the levels, float32[n, 4]."""
    return np.asarray(np.exp(log_levels.astype(np.float64)) @ _LEVELS)


def score_fold(
    pipeline: EncoderPipeline, number: int, graded: Sequence[GradedPair], folds: dict[str, int]
) -> dict[str, list[float]]:
    """Score a fold's pairs with its teacher and its student, which are trained without the fold."""
    folder = pipeline.work_dir / f"fold-{number}"
    training_pairs = [pair for pair in graded if folds[pair.query] != number]
    test_pairs = [pair.pair for pair in graded if folds[pair.query] == number]

    def by_teacher() -> NDArray[np.float32]:
        return teacher_levels(pipeline.teacher(folder.name, training_pairs), test_pairs)

    def by_student() -> NDArray[np.float32]:
        encoder = load_encoder(_student(pipeline, number, training_pairs, folds))
        return _log_levels(encoder.network, encoder, test_pairs)

    def by_joint() -> NDArray[np.float32]:
        student = _student(pipeline, number, training_pairs, folds)
        with TemporaryDirectory() as log:
            examples = collect_examples(Path(log), JOINT_PAGES, "chorus")
        return _log_levels(
            encoder_after_joint_training(replace(_JOINT_CONFIG, encoder=str(student)), examples),
            load_encoder(student),
            test_pairs,
        )

    makers = {"teacher": by_teacher, "student": by_student, AFTER_JOINT_TRAINING: by_joint}
    return {name: _cached_scores(folder / f"{name.replace(' ', '-')}.json", make) for name, make in makers.items()}


def _cached_scores(path: Path, levels: Callable[[], NDArray[np.float32]]) -> list[float]:
    if not path.exists():
        expected = expected_level(levels()).tolist()
        path.write_text(json.dumps(expected))
    found: list[float] = json.loads(path.read_bytes())
    return found


def _student(
    pipeline: EncoderPipeline, number: int, training_pairs: Sequence[GradedPair], folds: dict[str, int]
) -> Path:
    name = f"fold-{number}"
    folder = pipeline.work_dir / name / "student"
    if not folder.is_dir():
        teacher = pipeline.teacher(name, training_pairs)
        pairs = exclude_queries(pipeline.unlabelled_pairs(), [query for query, fold in folds.items() if fold == number])
        labels = pipeline.labels(name, teacher, pairs)
        made = pipeline.student(name, training_pairs, pairs, labels, STUDENT_CONFIG)
        provenance = provenance_of(made, STUDENT_CONFIG, graded=training_pairs, labels=labels.manifest)
        save_encoder(folder, made.network, made.tokenizer, pairs=training_pairs, provenance=provenance)
    return folder


def _log_levels(network: RelevanceEncoder, folder: EncoderArtifact, pairs: Sequence[Pair]) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = torch.log_softmax(
        predict_level_logits(network, folder.tokenizer, pairs), dim=1
    ).numpy()
    return logits


def teacher_levels(folder: Path, pairs: Sequence[Pair]) -> NDArray[np.float32]:
    """Log-probabilities of the levels by a teacher, float32[n, 4]."""
    teacher = ClassifierTeacher(folder, CPU)
    found = np.zeros((len(pairs), 4), dtype=np.float32)
    for indices in length_sorted_batches(teacher.lengths(pairs), LABEL_BATCH):
        found[indices] = teacher.log_levels([pairs[index] for index in indices])
    return found


def minilm_cosines(pipeline: EncoderPipeline, pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """Cosine of MiniLM's vectors of query and title, float64[n]."""
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    vectors = dict(zip(texts, pipeline.embed(texts), strict=True))
    return np.array([float(vectors[query] @ vectors[title]) for query, title in pairs])


def with_brand_and_description(pairs: Sequence[Pair], products: Sequence[Product]) -> list[Pair]:
    """Add brand and description of the product around the title, where they are known."""
    known = {product.title: product for product in products}
    found = []
    for query, title in pairs:
        product = known.get(title, Product(title))
        found.append((query, " ".join(filter(None, (product.brand, title, product.desc)))))
    return found


def bm25_scores(pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """BM25 score of each pair, over all titles, float64[n]."""
    titles = list(dict.fromkeys(title for _, title in pairs))
    title_index = {title: number for number, title in enumerate(titles)}
    index = Bm25([tokenize(title) for title in titles])
    by_query = {query: index.scores(tokenize(query)) for query, _ in pairs}
    return np.array([by_query[query][title_index[title]] for query, title in pairs])


def score_folds(
    pipeline: EncoderPipeline, graded: Sequence[GradedPair], fold_of_query: dict[str, int], folds: int, jobs: int
) -> Iterator[tuple[int, dict[str, list[float]]]]:
    """Yield number and scores of each fold as it completes; with several jobs in processes of their own."""
    if jobs == 1:
        for number in range(folds):
            yield number, score_fold(pipeline, number, graded, fold_of_query)
        return
    pipeline.warmed_up_encoder()  # Shared by all folds, so made once, here.
    spawned = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(jobs, spawned, initializer=_set_up_process, initargs=(threads,)) as pool:
        futures = {pool.submit(score_fold, pipeline, number, graded, fold_of_query): number for number in range(folds)}
        for future in as_completed(futures):
            yield futures[future], future.result()


def _set_up_process(threads: int) -> None:
    set_up_logging()
    torch.set_num_threads(threads)


def measure_all(pipeline: EncoderPipeline, folds: int, jobs: int = 1) -> dict[str, Any]:
    """Metrics of every system over the pairs of all folds, and differences between systems."""
    graded = chorus_graded_pairs()
    fold_of_query = assign_folds(graded, folds, pipeline.seed)
    pairs = [pair.pair for pair in graded]
    scores = {
        "minilm cosine": minilm_cosines(pipeline, pairs),
        DESCRIBED: minilm_cosines(pipeline, with_brand_and_description(pairs, read_products())),
        "bm25": bm25_scores(pairs),
    }
    untrained = tuple(scores)
    for name in _TRAINED_SYSTEMS:
        scores[name] = np.zeros(len(pairs))
    with progress_bar("folds", folds) as shown:
        for done, (number, fold) in enumerate(score_folds(pipeline, graded, fold_of_query, folds, jobs), start=1):
            test_indices = np.array([index for index, pair in enumerate(graded) if fold_of_query[pair.query] == number])
            for name, found in fold.items():
                scores[name][test_indices] = found
            shown.update(done)
    grades = np.array([pair.level - 1 for pair in graded])
    queries = [pair.query for pair in graded]
    estimates: dict[str, Relevance] = {
        name: score_relevance(scores[name], grades, queries) for name in (*_TRAINED_SYSTEMS, *untrained)
    }
    return {
        "rows": {name: asdict(figure) for name, figure in estimates.items()},
        "student_less_teacher_auc": asdict(auc_difference(scores["student"], scores["teacher"], grades, queries)),
        "joint_less_student_auc": asdict(
            auc_difference(scores[AFTER_JOINT_TRAINING], scores["student"], grades, queries)
        ),
        "student_less_minilm_auc": asdict(auc_difference(scores["student"], scores["minilm cosine"], grades, queries)),
    }


def relevance_table(result: dict[str, Any]) -> str:
    """Render the metrics as a Markdown table, intervals in brackets."""

    def cell(estimate: dict[str, float]) -> str:
        return f"{estimate['value']:.3f} ({estimate['low']:.3f}–{estimate['high']:.3f})"

    lines = ["| | AUC, grade 3 against 0 | within query | NDCG@10 |", "|---|---|---|---|"]
    for name, row in result["rows"].items():
        lines.append(f"| {name} | {cell(row['auc'])} | {cell(row['within_query'])} | {cell(row['ndcg'])} |")
    for title, key in _DIFFERENCES.items():
        figure = result[key]
        lines.append(f"\n{title}, AUC: {figure['value']:+.3f} ({figure['low']:+.3f} to {figure['high']:+.3f}).")
    return "\n".join(lines)


def main() -> None:
    """Run the folds that are not cached, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.relevance", description=__doc__)
    parser.add_argument("--folds", type=int, default=5, help="number of folds over queries")
    parser.add_argument("--queries", type=int, default=SYNTHETIC_QUERIES, help="synthetic queries, six pairs each")
    parser.add_argument("--seed", type=int, default=1, help="seed of folds and training")
    parser.add_argument("--work", type=Path, default=Path("relevance-run"), help="folder for intermediate results")
    parser.add_argument("--bfloat16", action="store_true", help="label in bfloat16: faster on CPUs that support it")
    parser.add_argument("--jobs", type=int, default=1, help="folds in parallel, one process each")
    parser.add_argument("--json", type=Path, help="write the result to this file as JSON")
    arguments = parser.parse_args()
    set_up_logging()
    start = time.monotonic()
    pipeline = EncoderPipeline(arguments.work, arguments.queries, arguments.seed, arguments.bfloat16)
    result = measure_all(pipeline, arguments.folds, arguments.jobs)
    result |= {
        "folds": arguments.folds,
        "synthetic_queries": arguments.queries,
        "command": command_line("bench.relevance", sys.argv[1:]),
        "machine": machine(),
        "versions": versions("torch", "transformers", "tokenizers"),
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(time.monotonic() - start),
    }
    print(relevance_table(result))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
