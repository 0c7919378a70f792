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
    threads: int = 1
    """CPU threads of a training step: sums may round otherwise with another number. 0: as torch likes."""
    embedding_rows: int = 1 << 18
    """Rows of the hashed embedding table, which all ids share,"""
    embedding_dim: int = 8
    """of this many numbers each,"""
    embedding_rate: float = 0.1
    """trained by Adagrad with this step,"""
    embedding_scale: float = 0.01
    """from starting values within ± this."""
    hidden: tuple[int, ...] = (64, 32)
    """Widths of the hidden layers of the deep part,"""
    dense_rate: float = 0.001
    """trained by Adam with this step."""
    wide_rows: int = 1 << 18
    """Rows of each hashed table of linear weights."""
    place_alpha: float = 0.3
    """The weights of position and level, few and soon well known, are trained by FTRL-Proximal: α of its step
    α/(β + √Σg²),"""
    place_beta: float = 1.0
    """and β of that."""
    ftrl_alpha: float = 0.3
    """The same for the weights of ids in `lr`: α"""
    ftrl_beta: float = 5.0
    """and β;"""
    wide_alpha: float = 0.1
    """and for the wide part of `wide-deep`, which shares its work with the deep part: α"""
    wide_beta: float = 2.0
    """and β."""
    ftrl_l1: float = 0.0
    """λ1 of FTRL-Proximal, which keeps weights of little use at zero,"""
    ftrl_l2: float = 0.0
    """and λ2, which draws weights to zero."""
    wide_prior: float = 32.0
    """The wide part of `wide-deep+` is trained by diagonal Newton steps: what its weights are taken to be known
    by at the start, in units of Σg²,"""
    slope_prior: float = 16.0
    """and the same for the slopes of users and queries over the level."""
    parent_slots: int = 4096
    """Rows for the click rates by category, the parents of the rates by query and user."""
    smoothing: float = 20.0
    """Impressions that a parent's rate counts for in the rates of its children."""
