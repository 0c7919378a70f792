"""A teacher's labels of pairs in a folder, written in parts so that an interrupted run can resume."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from prectr.model.layers.memory import read_file
from prectr.model.text.encoder.length_bucketing import length_sorted_batches
from prectr.model.text.encoder.tokens import Pair
from prectr.model.text.teacher.sentence_encoder import SentenceEncoder
from prectr.model.text.teacher.teacher import Teacher
from prectr.state.aggregates import LEVEL_COUNT
from prectr.state.errors import InputError, Remedy, UsageError

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"

PART_PAIRS: Final = 2_048
"""Pairs per part: about a minute of work, which an interruption can cost."""

PART_TEXTS: Final = 8_192
"""Texts per part of vectors."""

_DTYPES: Final = (np.float16, np.float32)


class LabelManifest(msgspec.Struct, frozen=True, kw_only=True):
    """The provenance of labels."""

    format: int
    teacher: dict[str, str]
    pairs: Annotated[int, msgspec.Meta(ge=0)]
    pairs_sha256: str
    part: Annotated[int, msgspec.Meta(ge=1)]
    """Pairs in each part but the last."""
    vectors: dict[str, str] | None = None
    """Identity of the sentence encoder of the vectors of queries, titles and words; None without vectors."""
    texts: int = 0
    """Number of distinct texts with vectors: queries, titles and their words."""


@dataclass(frozen=True, slots=True)
class SoftLabels:
    """A teacher's labels of n pairs.

    log_levels: float32[n, 4], of levels 1 to 4. vectors: float32[texts, width]; empty without vectors.
    """

    log_levels: NDArray[np.float32]
    text_index: dict[str, int]
    """Index of each text in `vectors`."""
    vectors: NDArray[np.float32]
    manifest: LabelManifest


def pairs_digest(pairs: Sequence[Pair]) -> str:
    """SHA-256 over pairs, in their order."""
    digest = hashlib.sha256()
    for pair in pairs:
        for text in pair:
            content = text.encode("utf-8", "surrogatepass")
            digest.update(len(content).to_bytes(4, "little"))
            digest.update(content)
    return digest.hexdigest()


def texts_of(pairs: Sequence[Pair]) -> list[str]:
    """Distinct queries, titles and words (split at white space, lower case), in order of first appearance."""
    texts: dict[str, None] = {}
    for pair in pairs:
        for text in pair:
            if text not in texts:
                texts[text] = None
                for word in text.lower().split():
                    texts.setdefault(word)
    return list(texts)


def write_labels(
    folder: Path,
    pairs: Sequence[Pair],
    teacher: Teacher,
    *,
    batch_size: int,
    sentences: SentenceEncoder | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> int:
    """Label pairs in parts; complete parts of an earlier run are kept. Returns the number of pairs labelled now.

    on_progress: receives the number of pairs done.

    Raises:
        UsageError: the folder holds labels of other pairs or of another teacher.
    """
    texts = texts_of(pairs) if sentences is not None else []
    manifest = LabelManifest(
        format=FORMAT,
        teacher=teacher.identity,
        pairs=len(pairs),
        pairs_sha256=pairs_digest(pairs),
        part=PART_PAIRS,
        vectors=sentences.identity if sentences is not None else None,
        texts=len(texts),
    )
    _write_or_check_manifest(folder, manifest)
    labelled = 0
    for start in range(0, len(pairs), PART_PAIRS):
        chunk = pairs[start : start + PART_PAIRS]
        path = _part_path(folder, "levels", start)
        if not _is_complete(path, len(chunk)):
            _write_atomic(
                path,
                save_arrays(
                    {"log_levels": _label(chunk, teacher, batch_size, partial(_report_from, on_progress, start))}
                ),
            )
            labelled += len(chunk)
        on_progress(start + len(chunk))
    if sentences is not None:
        for start in range(0, len(texts), PART_TEXTS):
            chunk_texts = texts[start : start + PART_TEXTS]
            path = _part_path(folder, "vectors", start)
            if not _is_complete(path, len(chunk_texts)):
                _write_atomic(path, save_arrays({"vectors": sentences.encode(chunk_texts).astype(np.float16)}))
    return labelled


def read_labels(folder: Path, pairs: Sequence[Pair]) -> SoftLabels:
    """Read the labels of pairs.

    Raises:
        UsageError: the folder holds no labels, or those of other pairs.
        InputError: labels are missing or corrupt.
    """
    manifest = read_manifest(folder)
    if (manifest.pairs, manifest.pairs_sha256) != (len(pairs), pairs_digest(pairs)):
        raise UsageError(
            f"{folder} holds labels of {manifest.pairs} other pairs (SHA-256 {manifest.pairs_sha256[:12]}…) than these "
            f"{len(pairs)} ({pairs_digest(pairs)[:12]}…): use the file of pairs that was labelled"
        )
    starts = range(0, len(pairs), manifest.part)
    parts = [
        _read_part(_part_path(folder, "levels", start), "log_levels", min(manifest.part, len(pairs) - start))
        for start in starts
    ]
    levels = np.concatenate(parts) if parts else np.zeros((0, 4))
    if manifest.vectors is None:
        return SoftLabels(levels.astype(np.float32), {}, np.zeros((0, 0), np.float32), manifest)
    texts = texts_of(pairs)
    blocks = [
        _read_part(_part_path(folder, "vectors", at), "vectors", min(PART_TEXTS, len(texts) - at))
        for at in range(0, len(texts), PART_TEXTS)
    ]
    text_index = {text: index for index, text in enumerate(texts)}
    return SoftLabels(levels.astype(np.float32), text_index, np.concatenate(blocks).astype(np.float32), manifest)


def read_manifest(folder: Path) -> LabelManifest:
    """Read the provenance of labels; UsageError: the folder holds none."""
    path = folder / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=LabelManifest)
    except OSError as error:
        raise UsageError(f"{folder} holds no labels, it has no {MANIFEST}: label the pairs first") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise InputError(f"{path} is corrupt: {error}; label the pairs again, into another folder") from error
    if manifest.format != FORMAT:
        raise UsageError(f"{path} has format {manifest.format}, this program reads {FORMAT}: label the pairs again")
    return manifest


def _label(
    pairs: Sequence[Pair], teacher: Teacher, batch_size: int, on_progress: Callable[[int], None]
) -> NDArray[np.float32]:
    log_levels = np.zeros((len(pairs), 4), dtype=np.float32)
    done = 0
    for indices in length_sorted_batches(teacher.lengths(pairs), batch_size):
        levels = teacher.log_levels([pairs[index] for index in indices])
        if not np.isfinite(levels).all():
            bad = pairs[int(indices[~np.isfinite(levels).all(axis=1)][0])]
            raise InputError(f"the teacher's answer to {bad!r} is not finite", Remedy.FLOAT32)
        log_levels[indices] = levels
        done += len(indices)
        on_progress(done)
    return log_levels


def _report_from(on_progress: Callable[[int], None], start: int, done: int) -> None:
    on_progress(start + done)


def _write_or_check_manifest(folder: Path, manifest: LabelManifest) -> None:
    """Write the manifest, or check that the existing one is equal."""
    if (folder / MANIFEST).is_file():
        existing = read_manifest(folder)
        if existing != manifest:
            names = [
                name for name in LabelManifest.__struct_fields__ if getattr(existing, name) != getattr(manifest, name)
            ]
            raise UsageError(
                f"{folder} holds labels of other provenance ({', '.join(names)} differ): use another folder, or "
                "remove this one"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    _write_atomic(folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def _part_path(folder: Path, name: str, start: int) -> Path:
    return folder / f"{name}-{start:09d}.safetensors"


def _is_complete(path: Path, rows: int) -> bool:
    try:
        return all(len(array) == rows for array in load_arrays(path.read_bytes()).values())
    except (OSError, SafetensorError):
        return False


def _read_part(path: Path, name: str, rows: int) -> NDArray[np.float32]:
    try:
        found: NDArray[np.float32] = load_arrays(read_file(path))[name]
    except OSError as error:
        raise InputError(f"{path.parent} is incomplete, {path.name} is missing: label the pairs again") from error
    except (SafetensorError, KeyError, TypeError) as error:
        raise InputError(f"{path} is corrupt: remove it and label the pairs again") from error
    if found.ndim != 2 or len(found) != rows:
        raise InputError(
            f"{path} holds {len(found) if found.ndim else 0} rows, not {rows}: remove it and label the pairs again"
        )
    if found.dtype not in _DTYPES or (name == "log_levels" and found.shape[1] != LEVEL_COUNT):
        raise InputError(f"{path} holds {found.dtype}{list(found.shape)}: remove it and label the pairs again")
    if not np.isfinite(found).all():
        raise InputError(f"{path} holds numbers that are not finite: remove it and label the pairs again")
    return found


def _write_atomic(path: Path, content: bytes) -> None:
    """Write to a temporary file, then rename."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)
