"""Variants: a model with components switched off or settings changed, in one of the two tracks."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.world.stage_one import UNEVEN_LEVELS, uneven_folder
from prectr.model.config import TrainerConfig
from prectr.model.models.registry import MODELS
from prectr.ops.settings.loader import Settings, load_settings
from prectr.state.errors import UsageError

LEVEL_SOURCE_BY_TRACK: Final = {"T": "inferred", "G": "logged"}
"""Track T: models do not see the logged relevance level of the item they score. Track G: they do."""

TRACK_SETTINGS: Final = ("level_source", "encoder")
"""Settings determined by the track."""

ABLATED_MODEL: Final = "prectr-v2"
"""The model that `--without` and `--debias` ablate."""

NO_DEBIAS: Final = "none"

GRADED_SETTING: Final = "graded"
"""Not a trainer setting: which graded pairs stage one lacks, `low` or `high` (`stage_one.UNEVEN_LEVELS`)."""


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """A variant of a model, the subject of one row.

    without: components switched off. settings: (name, value) of settings that differ from the defaults.
    """

    model: str
    without: tuple[str, ...] = ()
    track: str = "G"
    settings: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        """The model with its settings, as shown in tables."""
        return " ".join([self.model, *(f"{name}={value}" for name, value in self.settings)])

    @property
    def graded(self) -> str | None:
        """Which graded pairs stage one lacks; None: none are missing."""
        return dict(self.settings).get(GRADED_SETTING)

    @property
    def name(self) -> str:
        """Display name, also used in file names."""
        return " ".join([self.label, *(f"without {part}" for part in self.without)])


def trainer_config(settings: Settings, variant: Variant, encoder: Path) -> TrainerConfig:
    """Trainer configuration of a variant; encoder: folder of the stage-one encoder.

    Raises:
        ConfigError: a setting of the variant is unknown or out of range.
    """
    changed = {name: value for name, value in variant.settings if name != GRADED_SETTING}
    given = load_settings(None, changed, environ={}).trainer
    return dataclasses.replace(
        settings.trainer,
        model=variant.model,
        without=variant.without,
        level_source=LEVEL_SOURCE_BY_TRACK[variant.track],
        encoder=str(encoder_of(variant, encoder)),
        **{name: getattr(given, name) for name in changed},
    )


def encoder_of(variant: Variant, encoder: Path) -> Path:
    """Encoder folder that a variant uses, derived from that of stage one."""
    return encoder if variant.graded is None else uneven_folder(encoder, variant.graded)


def make_variants(
    models: Sequence[str],
    track: str,
    *,
    without: Sequence[str] = (),
    debias: Sequence[str] = (),
    settings: Sequence[tuple[str, str]] = (),
) -> list[Variant]:
    """Variants selected by the command line, each once.

    without: components of prectr-v2, one ablation each; `all` selects every component. debias: forms of its exposure
    debias; `none` switches it off. settings: applied to every variant.

    Raises:
        UsageError: unknown model, component, form or setting, or a setting determined by the track.
    """
    common = tuple(settings)
    _check_settings(common)
    found = [Variant(model=_known_model(model), track=track, settings=common) for model in models]
    full = Variant(model=ABLATED_MODEL, track=track, settings=common)
    parts = sorted(MODELS[ABLATED_MODEL].switches)
    for part in parts if "all" in without else without:
        if part not in parts:
            raise UsageError(
                f"--without {part}: {ABLATED_MODEL} has no such component; choose from {', '.join(parts)}, all"
            )
        found.append(msgspec.structs.replace(full, without=(part,)))
    for form in debias:
        if form == NO_DEBIAS:
            found.append(msgspec.structs.replace(full, without=("debias",)))
        elif form == TrainerConfig().debias:
            found.append(full)
        else:
            load_settings(None, {"debias": form}, environ={})
            found.append(msgspec.structs.replace(full, settings=(("debias", form), *common)))
    return list(dict.fromkeys(found))


def _check_settings(settings: Sequence[tuple[str, str]]) -> None:
    for name, _ in settings:
        if name in TRACK_SETTINGS:
            raise UsageError(f"--set {name}: determined by the track; use --track")
    graded = dict(settings).get(GRADED_SETTING)
    if graded is not None and graded not in UNEVEN_LEVELS:
        raise UsageError(f"--set {GRADED_SETTING}={graded}: choose from {', '.join(UNEVEN_LEVELS)}")
    load_settings(None, {name: value for name, value in settings if name != GRADED_SETTING}, environ={})


def _known_model(model: str) -> str:
    if model not in MODELS:
        raise UsageError(f"--models: unknown model {model!r}; choose from {', '.join(MODELS)}")
    return model


MODEL_STEPS: Final = (
    ("dnn", "lr"),
    ("wide-deep", "lr"),
    ("wide-deep", "dnn"),
    ("wide-deep+", "wide-deep"),
    ("prectr", "dnn"),
    ("prectr", "wide-deep"),
    ("prectr-v2", "prectr"),
    ("prectr-v2", "wide-deep+"),
    ("prectr-v2", "prectr-v2 exposure=off"),
    ("prectr-v2 exposure=off", "wide-deep+"),
    ("wide-deep+ exposure=on", "wide-deep+"),
    ("prectr-v2", "wide-deep+ exposure=on"),
)
"""Compared pairs of models, the expected better one first: the papers' order, the strong baseline, and either of these
with and without the exposure features."""


def comparisons(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of the given variants to compare: (the expected better one, the other)."""
    present = dict.fromkeys(names)
    found = [pair for pair in MODEL_STEPS if pair[0] in present and pair[1] in present]
    for name in present:
        if name.startswith("position") or " " not in name:
            continue
        label, _, part = name.partition(" without ")
        full = " ".join(word for word in label.split(" ") if not word.startswith("debias="))
        if part and label in present:
            found.append((label, name))
        elif full != label:
            found += [pair for pair in ((name, f"{full} without debias"), (full, name)) if pair[1] in present]
        elif label.split(" ")[0] in present and not any(name in pair for pair in MODEL_STEPS):
            found.append((name, label.split(" ")[0]))
    return [pair for pair in dict.fromkeys(found) if pair[0] in present and pair[1] in present]
