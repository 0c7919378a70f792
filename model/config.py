"""The settings that decide what the trainer learns; part of every checkpoint's identity."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerConfig:
    """Settings of the trainer. Durations are in seconds of event time (effective close)."""

    model: str = "wide-deep+"
    """A name in `model.registry`."""
    without: tuple[str, ...] = ()
    """Parts of the model that are switched off (ablations); each model names the ones it has."""
    batch_pages: int = 16
    """A batch ends after this many pages,"""
    batch_span: float = 60.0
    """or when effective close passes that of its first page by this much, whichever comes first."""
    seed: int = 0
    """Of the weights at the start and of everything random in training."""
    device: str = "auto"
    """`auto` (CUDA if there is one), `cpu` or `cuda`."""
