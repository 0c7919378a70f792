"""A teacher's labels of pairs in a folder: written part by part, so that a run that was cut off goes on."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from prectr.model.text.encoder.length_bucketing import by_length
from prectr.model.text.encoder.tokens import Pair
from prectr.model.text.teacher.sentence_encoder import SentenceEncoder
from prectr.model.text.teacher.teacher import Teacher
from prectr.state.errors import InputError, UsageError

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"

PART: Final = 2_048
"""Pairs a part: a minute of work or so that a kill can cost."""

TEXTS: Final = 8_192
"""Texts a part of vectors."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Where labels come from."""

    format: int
    teacher: dict[str, str]
    pairs: int
    pairs_sha256: str
    part: int
    """Pairs in each part but the last."""
    vectors: dict[str, str] | None = None
    """The sentence encoder that the vectors of queries, titles and words are from, if there are any."""
    texts: int = 0
    """Texts that have vectors: queries, titles and their words, each once."""


@dataclass(frozen=True, slots=True)
class SoftLabels:
    """A teacher's labels of n pairs.

    log_levels: float32[n, 4], of levels 1 to 4. vectors: of texts, float32[width] each, empty where the labels carry
    none.
    """

    log_levels: NDArray[np.float32]
    texts: dict[str, int]
    """Place of each text in `vectors`."""
    vectors: NDArray[np.float32]
    manifest: Manifest


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
    """Queries, titles and their words (split at white space, lower case), each once, in order of first appearance."""
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
    batch: int,
    sentences: SentenceEncoder | None = None,
    said: Callable[[int], None] = lambda done: None,
) -> int:
    """Label pairs, part by part; parts that are there already are kept. Returns the number of pairs labelled now.

    said: hears how many pairs are done. UsageError: the folder holds labels of other pairs or of another teacher.
    """
    texts = texts_of(pairs) if sentences is not None else []
    manifest = Manifest(
        format=FORMAT,
        teacher=teacher.identity,
        pairs=len(pairs),
        pairs_sha256=pairs_digest(pairs),
        part=PART,
        vectors=sentences.identity if sentences is not None else None,
        texts=len(texts),
    )
    _claim(folder, manifest)
    fresh = 0
    for start in range(0, len(pairs), PART):
        some = pairs[start : start + PART]
        path = _part(folder, "levels", start)
        if not _whole(path, len(some)):
            _put(path, save_arrays({"log_levels": _label(some, teacher, batch, partial(_onwards, said, start))}))
            fresh += len(some)
        said(start + len(some))
    if sentences is not None:
        for start in range(0, len(texts), TEXTS):
            words = texts[start : start + TEXTS]
            path = _part(folder, "vectors", start)
            if not _whole(path, len(words)):
                _put(path, save_arrays({"vectors": sentences.vectors(words).astype(np.float16)}))
    return fresh


def read_labels(folder: Path, pairs: Sequence[Pair]) -> SoftLabels:
    """Read the labels of pairs.

    Raises:
        UsageError: the folder holds no labels, or those of other pairs.
        InputError: labels are missing or damaged.
    """
    manifest = read_manifest(folder)
    if (manifest.pairs, manifest.pairs_sha256) != (len(pairs), pairs_digest(pairs)):
        raise UsageError(
            f"{folder} holds labels of {manifest.pairs} other pairs (SHA-256 {manifest.pairs_sha256[:12]}…) than these "
            f"{len(pairs)} ({pairs_digest(pairs)[:12]}…): give the file of pairs that `prectr label` was given"
        )
    starts = range(0, len(pairs), manifest.part)
    parts = [_read(_part(folder, "levels", at), "log_levels", min(manifest.part, len(pairs) - at)) for at in starts]
    levels = np.concatenate(parts) if parts else np.zeros((0, 4))
    if manifest.vectors is None:
        return SoftLabels(levels.astype(np.float32), {}, np.zeros((0, 0), np.float32), manifest)
    texts = texts_of(pairs)
    blocks = [
        _read(_part(folder, "vectors", at), "vectors", min(TEXTS, len(texts) - at))
        for at in range(0, len(texts), TEXTS)
    ]
    places = {text: place for place, text in enumerate(texts)}
    return SoftLabels(levels.astype(np.float32), places, np.concatenate(blocks).astype(np.float32), manifest)


def read_manifest(folder: Path) -> Manifest:
    """Where the labels of a folder come from; UsageError if it holds none."""
    path = folder / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except OSError as error:
        raise UsageError(f"{folder} holds no labels, it has no {MANIFEST}: make them with `prectr label`") from error
    except msgspec.DecodeError as error:
        raise InputError(f"{path} is damaged: {error}; label the pairs anew, into another folder") from error
    if manifest.format != FORMAT:
        raise UsageError(f"{path} is of format {manifest.format}, this program reads {FORMAT}: label the pairs anew")
    return manifest


def _label(pairs: Sequence[Pair], teacher: Teacher, batch: int, said: Callable[[int], None]) -> NDArray[np.float32]:
    found = np.zeros((len(pairs), 4), dtype=np.float32)
    done = 0
    for places in by_length(teacher.lengths(pairs), batch):
        levels = teacher.log_levels([pairs[place] for place in places])
        if not np.isfinite(levels).all():
            bad = pairs[int(places[~np.isfinite(levels).all(axis=1)][0])]
            raise InputError(f"the teacher's answer to {bad!r} is not finite: try --dtype float32")
        found[places] = levels
        done += len(places)
        said(done)
    return found


def _onwards(said: Callable[[int], None], start: int, done: int) -> None:
    said(start + done)


def _claim(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, or see that the one there says the same."""
    if (folder / MANIFEST).is_file():
        there = read_manifest(folder)
        if there != manifest:
            names = [name for name in Manifest.__struct_fields__ if getattr(there, name) != getattr(manifest, name)]
            raise UsageError(
                f"{folder} holds labels of other provenance ({', '.join(names)} differ): name another folder, or "
                "remove it to label anew"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    _put(folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def _part(folder: Path, name: str, start: int) -> Path:
    return folder / f"{name}-{start:09d}.safetensors"


def _whole(path: Path, rows: int) -> bool:
    try:
        return all(len(array) == rows for array in load_arrays(path.read_bytes()).values())
    except (OSError, SafetensorError):
        return False


def _read(path: Path, name: str, rows: int) -> NDArray[np.float32]:
    try:
        found: NDArray[np.float32] = load_arrays(path.read_bytes())[name]
    except OSError as error:
        raise InputError(f"{path.parent} is not complete, {path.name} is missing: run `prectr label` again") from error
    except (SafetensorError, KeyError) as error:
        raise InputError(f"{path} is damaged: remove it and run `prectr label` again") from error
    if len(found) != rows:
        raise InputError(f"{path} holds {len(found)} rows, not {rows}: remove it and run `prectr label` again")
    return found


def _put(path: Path, content: bytes) -> None:
    """Write aside, then rename: what bears the name is whole."""
    aside = path.with_suffix(".tmp")
    aside.write_bytes(content)
    os.replace(aside, path)
