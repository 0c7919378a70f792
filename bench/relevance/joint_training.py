"""The text encoder after joint training on clicks."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import torch

from prectr.model.config import TrainerConfig
from prectr.model.models.registry import make_model
from prectr.model.text.encoder.artifact import load_encoder
from prectr.model.text.encoder.network import RelevanceEncoder
from prectr.model.training import checkpoint
from prectr.model.training.trainer import Trainer
from prectr.stream.records import Example

_CPU: Final = torch.device("cpu")
_ENCODER, _LEVELS = "dense.encoder.", "dense.level."


def encoder_after_joint_training(config: TrainerConfig, examples: Sequence[Example]) -> RelevanceEncoder:
    """Train a PRECTR model on examples, and return its text encoder with the model's level head.

    config: names a folder as `encoder`; the device is the CPU.
    """
    trainer = Trainer(config)
    trainer.consume(examples, 0)
    trainer.flush()
    # The names of parameters are known to the model, not to the checkpoint.
    model = make_model(config, _CPU)
    with TemporaryDirectory() as folder:
        trainer.save(Path(folder))
        tensors = checkpoint.read(Path(folder), config).tensors
        model.load_training_state(
            {name.removeprefix("model."): tensors[name] for name in tensors if name.startswith("model.")}
        )
    weights = model.weights()
    network = deepcopy(load_encoder(Path(config.encoder)).network)
    network.load_state_dict(
        {
            **{name.removeprefix(_ENCODER): tensor for name, tensor in weights.items() if name.startswith(_ENCODER)},
            **{f"levels.{part}": weights[_LEVELS + part] for part in ("weight", "bias")},
        }
    )
    return network
