"""The provenance of an encoder, recorded in its folder."""

import dataclasses
import hashlib
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import msgspec

from prectr.model.config import PretrainConfig
from prectr.model.text.encoder.graded import GradedPair
from prectr.model.text.encoder.pretrain import Pretrained
from prectr.model.text.teacher.labels import LabelManifest


def provenance_of(
    pretrained: Pretrained, config: PretrainConfig, *, graded: Sequence[GradedPair], labels: LabelManifest | None
) -> dict[str, Any]:
    """Settings, data, teacher, losses and versions, for the folder's header."""
    return {
        "settings": dataclasses.asdict(config),
        "graded": {
            "pairs": len(graded),
            "queries": len({pair.query for pair in graded}),
            "sha256": hashlib.sha256(msgspec.json.encode(list(graded))).hexdigest(),
        },
        "labels": msgspec.to_builtins(labels) if labels is not None else None,
        "passes": [epoch._asdict() for epoch in pretrained.epochs],
        "kept_pass": pretrained.best_epoch,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "tokenizers", "numpy")},
        },
    }
