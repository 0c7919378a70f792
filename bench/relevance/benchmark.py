"""Relevance on the Chorus catalogue, by folds over queries: `python -m bench.relevance [--json FILE] [--folds 5]`.

Each fold has a teacher, a distillation set and a student of its own, none of which has seen a grade or a query of the
fold; MiniLM's cosine and BM25 learn nothing. All read the title, which is what an event tells of an item; MiniLM is
asked once more with brand and description beside it. The student is looked at again after `prectr-v2` has learned with
it from a simulated log, whose clicks come from all grades, the fold's among them, but which is told none of them to
tell levels. What is made stays in the work folder, and a run that was cut off goes on.
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
from bench.relevance.chorus_encoder import CPU, LABEL_BATCH, Workshop, chorus_graded, without_queries
from bench.relevance.chorus_queries import Product, read_products, words_of
from bench.relevance.joint_training import trained_on
from bench.relevance.log_examples import log_examples
from bench.relevance.scores import Relevance, auc_difference, score_relevance
from prectr.model.config import TrainerConfig
from prectr.model.text.encoder.artifact import EncoderFolder, load_encoder, save_encoder
from prectr.model.text.encoder.graded import GradedPair
from prectr.model.text.encoder.length_bucketing import by_length
from prectr.model.text.encoder.network import RelevanceEncoder
from prectr.model.text.encoder.pretrain import PretrainConfig, level_logits
from prectr.model.text.encoder.provenance import provenance_of
from prectr.model.text.encoder.tokens import Pair
from prectr.model.text.teacher.teacher import ClassifierTeacher
from prectr.ops.cli.console import meter, set_up_logging

STUDENT: Final = PretrainConfig(held_out=0.0, tune_epochs=4, tune_rate=3e-4)
"""Of every student here and of the shipped encoder; chosen on fold 0 of another split."""

QUERIES: Final = 17_000
"""Made-up queries of the shipped encoder's distillation set: about 100,000 pairs."""

AFTER_JOINT: Final = "student after joint training"
JOINT_PAGES: Final = 6_000
"""Of the log for joint training: as many as `prectr demo` has."""

DESCRIBED: Final = "minilm cosine, brand and description too"
_LEARNED: Final = ("teacher", "student", AFTER_JOINT)
_JOINT: Final = TrainerConfig(model="prectr-v2", levels="inferred", batch_span=86_400.0, device="cpu")
_DIFFERENCES: Final = {
    "Student less its teacher": "student_less_teacher_auc",
    "Student less MiniLM cosine": "student_less_minilm_auc",
    "After joint training less before": "joint_less_student_auc",
}
_LEVELS: Final = np.arange(1, 5)


def fold_of(graded: Sequence[GradedPair], folds: int, seed: int) -> dict[str, int]:
    """The fold of each query, drawn from the seed."""
    queries = sorted({pair.query for pair in graded})
    order = np.random.default_rng([seed, 9]).permutation(len(queries))
    return {queries[place]: number % folds for number, place in enumerate(order.tolist())}


def expected_level(log_levels: NDArray[np.float32]) -> NDArray[np.float64]:
    """The mean level, float64[n], of log-probabilities of the levels, float32[n, 4]."""
    return np.asarray(np.exp(log_levels.astype(np.float64)) @ _LEVELS)


def score_fold(
    shop: Workshop, number: int, graded: Sequence[GradedPair], folds: dict[str, int]
) -> dict[str, list[float]]:
    """Scores of a fold's pairs by its teacher and its student, each made without the fold."""
    folder = shop.work / f"fold-{number}"
    learned = [pair for pair in graded if folds[pair.query] != number]
    tested = [pair.pair for pair in graded if folds[pair.query] == number]

    def by_teacher() -> NDArray[np.float32]:
        return teacher_levels(shop.teacher(folder.name, learned), tested)

    def by_student() -> NDArray[np.float32]:
        encoder = load_encoder(_student(shop, number, learned, folds))
        return _levels(encoder.network, encoder, tested)

    def by_joint() -> NDArray[np.float32]:
        student = _student(shop, number, learned, folds)
        with TemporaryDirectory() as log:
            examples = log_examples(Path(log), JOINT_PAGES, "chorus")
        return _levels(trained_on(replace(_JOINT, encoder=str(student)), examples), load_encoder(student), tested)

    makers = {"teacher": by_teacher, "student": by_student, AFTER_JOINT: by_joint}
    return {name: _kept(folder / f"{name.replace(' ', '-')}.json", make) for name, make in makers.items()}


def _kept(path: Path, levels: Callable[[], NDArray[np.float32]]) -> list[float]:
    if not path.exists():
        told = expected_level(levels()).tolist()
        path.write_text(json.dumps(told))
    found: list[float] = json.loads(path.read_bytes())
    return found


def _student(shop: Workshop, number: int, learned: Sequence[GradedPair], folds: dict[str, int]) -> Path:
    name = f"fold-{number}"
    folder = shop.work / name / "student"
    if not folder.is_dir():
        teacher = shop.teacher(name, learned)
        pairs = without_queries(shop.unlabelled(), [query for query, place in folds.items() if place == number])
        labels = shop.labels(name, teacher, pairs)
        made = shop.student(name, learned, pairs, labels, STUDENT)
        provenance = provenance_of(made, STUDENT, graded=learned, labels=labels.manifest)
        save_encoder(folder, made.network, made.tokenizer, pairs=learned, provenance=provenance)
    return folder


def _levels(network: RelevanceEncoder, folder: EncoderFolder, pairs: Sequence[Pair]) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = torch.log_softmax(level_logits(network, folder.tokenizer, pairs), dim=1).numpy()
    return logits


def teacher_levels(folder: Path, pairs: Sequence[Pair]) -> NDArray[np.float32]:
    """A teacher's log-probabilities of the levels, float32[n, 4]."""
    teacher = ClassifierTeacher(folder, CPU)
    found = np.zeros((len(pairs), 4), dtype=np.float32)
    for places in by_length(teacher.lengths(pairs), LABEL_BATCH):
        found[places] = teacher.log_levels([pairs[place] for place in places])
    return found


def minilm_cosines(shop: Workshop, pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """Cosine of MiniLM's vectors of query and title, float64[n]."""
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    vectors = dict(zip(texts, shop.embed(texts), strict=True))
    return np.array([float(vectors[query] @ vectors[title]) for query, title in pairs])


def described(pairs: Sequence[Pair], products: Sequence[Product]) -> list[Pair]:
    """The pairs with the product's brand before its title and its description after it, where it is known."""
    known = {product.title: product for product in products}
    found = []
    for query, title in pairs:
        product = known.get(title, Product(title))
        found.append((query, " ".join(filter(None, (product.brand, title, product.desc)))))
    return found


def bm25_scores(pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """BM25 of each pair over all titles, float64[n]."""
    titles = list(dict.fromkeys(title for _, title in pairs))
    place = {title: at for at, title in enumerate(titles)}
    index = Bm25([words_of(title) for title in titles])
    by_query = {query: index.scores(words_of(query)) for query, _ in pairs}
    return np.array([by_query[query][place[title]] for query, title in pairs])


def score_folds(
    shop: Workshop, graded: Sequence[GradedPair], placed: dict[str, int], folds: int, jobs: int
) -> Iterator[tuple[int, dict[str, list[float]]]]:
    """Number and scores of each fold as it is done; several processes where there are jobs for them."""
    if jobs == 1:
        for number in range(folds):
            yield number, score_fold(shop, number, graded, placed)
        return
    shop.warm()  # What all folds share is made once.
    spawned = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with ProcessPoolExecutor(jobs, spawned, initializer=_set_up_process, initargs=(threads,)) as pool:
        waiting = {pool.submit(score_fold, shop, number, graded, placed): number for number in range(folds)}
        for done in as_completed(waiting):
            yield waiting[done], done.result()


def _set_up_process(threads: int) -> None:
    set_up_logging()
    torch.set_num_threads(threads)


def measure(shop: Workshop, folds: int, jobs: int = 1) -> dict[str, Any]:
    """Every system's figures over all folds' pairs, and the student's difference from its teacher."""
    graded = chorus_graded()
    placed = fold_of(graded, folds, shop.seed)
    pairs = [pair.pair for pair in graded]
    scores = {
        "minilm cosine": minilm_cosines(shop, pairs),
        DESCRIBED: minilm_cosines(shop, described(pairs, read_products())),
        "bm25": bm25_scores(pairs),
    }
    untaught = tuple(scores)
    for name in _LEARNED:
        scores[name] = np.zeros(len(pairs))
    with meter("folds", folds) as shown:
        for done, (number, fold) in enumerate(score_folds(shop, graded, placed, folds, jobs), start=1):
            tested = np.array([place for place, pair in enumerate(graded) if placed[pair.query] == number])
            for name, found in fold.items():
                scores[name][tested] = found
            shown.update(done)
    grades = np.array([pair.level - 1 for pair in graded])
    queries = [pair.query for pair in graded]
    figures: dict[str, Relevance] = {
        name: score_relevance(scores[name], grades, queries) for name in (*_LEARNED, *untaught)
    }
    return {
        "rows": {name: asdict(figure) for name, figure in figures.items()},
        "student_less_teacher_auc": asdict(auc_difference(scores["student"], scores["teacher"], grades, queries)),
        "joint_less_student_auc": asdict(auc_difference(scores[AFTER_JOINT], scores["student"], grades, queries)),
        "student_less_minilm_auc": asdict(auc_difference(scores["student"], scores["minilm cosine"], grades, queries)),
    }


def table(result: dict[str, Any]) -> str:
    """The figures as a Markdown table, intervals in brackets."""

    def cell(figure: dict[str, float]) -> str:
        return f"{figure['value']:.3f} ({figure['low']:.3f}–{figure['high']:.3f})"

    lines = ["| | AUC, grade 3 against 0 | within query | NDCG@10 |", "|---|---|---|---|"]
    for name, row in result["rows"].items():
        lines.append(f"| {name} | {cell(row['auc'])} | {cell(row['within_query'])} | {cell(row['ndcg'])} |")
    for what, key in _DIFFERENCES.items():
        figure = result[key]
        lines.append(f"\n{what}, AUC: {figure['value']:+.3f} ({figure['low']:+.3f} to {figure['high']:+.3f}).")
    return "\n".join(lines)


def main() -> None:
    """Run the folds that have not been run, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.relevance", description=__doc__)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--queries", type=int, default=QUERIES, help="made-up queries, about six pairs each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("relevance-run"), help="what is made stays here")
    parser.add_argument("--bfloat16", action="store_true", help="label in bfloat16, on a CPU that has it twice as fast")
    parser.add_argument("--jobs", type=int, default=1, help="folds at a time, a process each")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    set_up_logging()
    begun = time.monotonic()
    shop = Workshop(arguments.work, arguments.queries, arguments.seed, arguments.bfloat16)
    result = measure(shop, arguments.folds, arguments.jobs)
    result |= {
        "folds": arguments.folds,
        "made_up_queries": arguments.queries,
        "command": command_line("bench.relevance", sys.argv[1:]),
        "machine": machine(),
        "versions": versions("torch", "transformers", "tokenizers"),
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(time.monotonic() - begun),
    }
    print(table(result))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
