"""The models by name.

A new model is one file, one entry here and a name in `MODEL_NAMES` (`model/config.py`, which does not import torch).
`TrainerConfig.has_relevance_component` goes by the prefix `prectr` of the name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import torch

from prectr.model.config import TrainerConfig
from prectr.model.layers.memory import require_memory
from prectr.model.models.dnn import DeepNetwork
from prectr.model.models.lr import LogisticRegression
from prectr.model.models.online_model import OnlineModel
from prectr.model.models.prectr.components import SWITCHES, SWITCHES_V2
from prectr.model.models.wide_deep import WideDeep
from prectr.model.models.wide_deep_plus import WideDeepPlus
from prectr.state.aggregates import LEVEL_COUNT
from prectr.state.errors import ConfigError

if TYPE_CHECKING:
    from prectr.model.text.encoder.artifact import EncoderArtifact

_INPUT_WIDTHS: Final = 7
"""Embeddings side by side in the input of the first hidden layer."""
_NUMERIC_COLUMNS: Final = 64
"""About as many numbers stand beside them."""
_CACHED_PAIR_BYTES: Final = 133 * 2 + 16
_MODULE_BYTES: Final = 4096
"""About as much takes a layer besides its weights."""
_NAMED_SETTINGS: Final = 3


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model of the registry.

    make: builds the model, with the encoder if it reads text.
    switches: the components that `without` may name.
    supports_exposure: whether it has features of how often items were shown for the query.
    """

    make: "Callable[[TrainerConfig, torch.device, EncoderArtifact | None], OnlineModel]"
    switches: frozenset[str] = frozenset()
    supports_exposure: bool = False


def _baseline(
    model: Callable[[TrainerConfig, torch.device], OnlineModel],
) -> "Callable[[TrainerConfig, torch.device, EncoderArtifact | None], OnlineModel]":
    """Return a factory for a model that reads no text itself; an encoder adds the text features of stage one."""

    def make(config: TrainerConfig, device: torch.device, encoder: "EncoderArtifact | None") -> OnlineModel:
        if encoder is None:
            return model(config, device)
        from prectr.model.models.text_feature_model import TextFeatureModel  # noqa: PLC0415 (see make_model)

        return TextFeatureModel(model(config, device), config, device, encoder)

    return make


def _prectr(config: TrainerConfig, device: torch.device, encoder: "EncoderArtifact | None") -> OnlineModel:
    from prectr.model.models.prectr.model import Prectr  # noqa: PLC0415 (see make_model)

    if encoder is None:
        raise ConfigError(f"model {config.model} needs a text encoder, and encoder is {config.encoder!r}")
    return Prectr(config, device, encoder)


MODELS: Final[dict[str, ModelEntry]] = {
    "lr": ModelEntry(_baseline(LogisticRegression)),
    "dnn": ModelEntry(_baseline(DeepNetwork)),
    "wide-deep": ModelEntry(_baseline(WideDeep)),
    "wide-deep+": ModelEntry(_baseline(WideDeepPlus), supports_exposure=True),
    "prectr": ModelEntry(_prectr, SWITCHES),
    "prectr-v2": ModelEntry(_prectr, SWITCHES_V2, supports_exposure=True),
}


def make_model(config: TrainerConfig, device: torch.device) -> OnlineModel:
    """Make the model that the configuration names, untrained; the encoder, if it reads text, is loaded here.

    Raises:
        ConfigError: there is no such model or component, a setting is not for this model, or the model does not fit
            into memory.
        CheckpointError: the encoder is missing or corrupt.
    """
    entry = MODELS.get(config.model)
    if entry is None:
        raise ConfigError(f"model {config.model!r} is unknown; choose one of {', '.join(MODELS)}")
    for switch in config.without:
        if switch not in entry.switches:
            choices = ", ".join(sorted(entry.switches)) or "none"
            raise ConfigError(f"model {config.model} has no component {switch!r} to leave out; it has: {choices}")
    if config.exposure == "on" and not entry.supports_exposure:
        supporting = ", ".join(name for name, each in MODELS.items() if each.supports_exposure)
        raise ConfigError(f"model {config.model} has no exposure features; exposure=on is for {supporting}")
    _require_memory(config, device)
    if not config.reads_text:
        return entry.make(config, device, None)
    # Whatever reads text imports transformers, which takes seconds.
    from prectr.model.text.pair_encoder import open_encoder  # noqa: PLC0415

    return entry.make(config, device, open_encoder(config))


def _require_memory(config: TrainerConfig, device: torch.device) -> None:
    """Raise ConfigError if the model's state does not fit into memory; the message names the largest parts."""
    needs = {name: size for name, size in _bytes_by_setting(config).items() if size}
    largest_first = sorted(needs, key=lambda name: -needs[name])[:_NAMED_SETTINGS]
    parts = [f"{name} {_worded(getattr(config, name))}" for name in largest_first]
    require_memory(sum(needs.values()), device, f"{config.model} with {', '.join(parts)}")


def _bytes_by_setting(config: TrainerConfig) -> dict[str, int]:
    """What a model and its trainer keep, by the setting that decides its size.

    Tables: values, optimizer state and a byte for each row. Layers: values as made, and five flat buffers.
    """
    widths = [_INPUT_WIDTHS * config.embedding_dim + _NUMERIC_COLUMNS, *config.hidden]
    layers = sum(inputs * outputs for inputs, outputs in pairwise(widths)) + sum(config.hidden)
    has_exposure = config.exposure == "on" or (config.exposure == "auto" and config.model == "prectr-v2")
    return {
        "embedding_rows": 0 if config.model == "lr" else config.embedding_rows * (2 * 4 * config.embedding_dim + 1),
        "wide_rows": 0 if config.model == "dnn" else config.wide_rows * (3 * 4 + 1),
        "hidden": 0 if config.model == "lr" else layers * 6 * 4 + len(config.hidden) * _MODULE_BYTES,
        "pair_cache_size": config.pair_cache_size * _CACHED_PAIR_BYTES if config.reads_text else 0,
        "exposure_sketch_size": config.exposure_sketch_size * 3 * 4 if has_exposure else 0,
        "exposed_pairs_bits": config.exposed_pairs_bits if config.has_relevance_component else 0,
        "prior_rates_size": config.prior_rates_size * 2 * LEVEL_COUNT * 8,
    }


def _worded(value: int | tuple[int, ...]) -> str:
    return f"{value:,}" if isinstance(value, int) else str(list(value))
