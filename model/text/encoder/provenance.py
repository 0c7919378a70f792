"""Where an encoder comes from, as its folder tells it."""

import dataclasses
import hashlib
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import msgspec

from prectr.model.text.encoder.graded import GradedPair
from prectr.model.text.encoder.pretrain import PretrainConfig, Pretrained
from prectr.model.text.teacher.labels import Manifest


def provenance_of(
    made: Pretrained, config: PretrainConfig, *, graded: Sequence[GradedPair], labels: Manifest | None
) -> dict[str, Any]:
    """Settings, data, teacher, figures and versions, for the folder's header."""
    return {
        "settings": dataclasses.asdict(config),
        "graded": {
            "pairs": len(graded),
            "queries": len({pair.query for pair in graded}),
            "sha256": hashlib.sha256(msgspec.json.encode(list(graded))).hexdigest(),
        },
        "labels": msgspec.to_builtins(labels) if labels is not None else None,
        "passes": [row._asdict() for row in made.passes],
        "kept_pass": made.best,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "tokenizers", "numpy")},
        },
    }
