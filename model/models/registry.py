"""The models by name: a new model is one file and one line here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch

from prectr.model.config import TrainerConfig
from prectr.model.models.dnn import DeepNetwork
from prectr.model.models.lr import LogisticRegression
from prectr.model.models.online_model import OnlineModel
from prectr.model.models.prectr.components import SWITCHES, SWITCHES_V2
from prectr.model.models.wide_deep import WideDeep
from prectr.model.models.wide_deep_plus import WideDeepPlus
from prectr.state.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model of the registry."""

    make: Callable[[TrainerConfig, torch.device], OnlineModel]
    switches: frozenset[str] = frozenset()
    """What `without` may name."""
    supports_exposure: bool = False
    """Whether it can be told how often items were shown for the query."""


def _prectr(config: TrainerConfig, device: torch.device) -> OnlineModel:
    from prectr.model.models.prectr.model import Prectr  # noqa: PLC0415 (what reads text imports transformers, which takes seconds)

    return Prectr(config, device)


MODELS: Final[dict[str, ModelEntry]] = {
    "lr": ModelEntry(LogisticRegression),
    "dnn": ModelEntry(DeepNetwork),
    "wide-deep": ModelEntry(WideDeep),
    "wide-deep+": ModelEntry(WideDeepPlus, supports_exposure=True),
    "prectr": ModelEntry(_prectr, SWITCHES),
    "prectr-v2": ModelEntry(_prectr, SWITCHES_V2, supports_exposure=True),
}


def make_model(config: TrainerConfig, device: torch.device) -> OnlineModel:
    """The model that the configuration names, at its start. ConfigError: no such model or switch, or not for it."""
    entry = MODELS.get(config.model)
    if entry is None:
        raise ConfigError(f"model {config.model!r} is not known; choose one of {', '.join(MODELS)}")
    for switch in config.without:
        if switch not in entry.switches:
            choices = ", ".join(sorted(entry.switches)) or "none"
            raise ConfigError(f"model {config.model} has no part {switch!r} to leave out; its parts: {choices}")
    if config.exposure == "on" and not entry.supports_exposure:
        supporting = ", ".join(name for name, each in MODELS.items() if each.supports_exposure)
        raise ConfigError(
            f"model {config.model} cannot be told how often items were shown: exposure=on is for {supporting}"
        )
    model = entry.make(config, device)
    if config.reads_text and not config.has_relevance_component:
        from prectr.model.models.text_feature_model import TextFeatureModel  # noqa: PLC0415 (as above)

        return TextFeatureModel(model, config, device)
    return model
