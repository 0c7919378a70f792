"""The settings that decide what the trainer learns; part of every checkpoint's identity."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerConfig:
    """Settings of the trainer. Durations are in seconds of event time (effective close)."""

    model: str = "wide-deep+"
    """A name in `prectr.model.models.registry`."""
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
    embedding_lr: float = 0.1
    """trained by Adagrad with this step,"""
    embedding_scale: float = 0.01
    """from starting values within ± this."""
    hidden: tuple[int, ...] = (64, 32)
    """Widths of the hidden layers of the deep part,"""
    dense_lr: float = 0.001
    """trained by Adam with this step."""
    wide_rows: int = 1 << 18
    """Rows of each hashed table of linear weights."""
    position_ftrl_alpha: float = 0.3
    """The weights of position and level, few and soon well known, are trained by FTRL-Proximal: α of its step
    α/(β + √Σg²),"""
    position_ftrl_beta: float = 1.0
    """and β of that."""
    ftrl_alpha: float = 0.3
    """The same for the weights of ids in `lr`: α"""
    ftrl_beta: float = 5.0
    """and β;"""
    wide_ftrl_alpha: float = 0.1
    """and for the wide part of `wide-deep`, which shares its work with the deep part: α"""
    wide_ftrl_beta: float = 2.0
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
    pair_prior: float = 24.0
    """and for the weights of an item under a query, which `prectr-v2` has."""
    prior_rates_size: int = 4096
    """Rows for the click rates by category, the parents of the rates by query and user."""
    smoothing: float = 20.0
    """Impressions that a parent's rate counts for in the rates of its children."""
    level_source: str = "auto"
    """What a model is told of an impression's relevance level: `logged`, `inferred` from its text, or `auto`:
    inferred by the models that have a relevance part, logged for the others."""
    encoder: str = "auto"
    """The text encoder: `none`, `shipped`, the folder of another, or `auto`: the shipped one where a model reads
    text."""
    encoder_lr: float = 0.0001
    """Step of Adam for the encoder in joint training."""
    encoder_share: float = 0.02
    """Share of a batch's distinct pairs that the encoder learns from; the others are read from the cache of pair
    embeddings. 1: every pair goes through the encoder every time."""
    pair_cache_size: int = 1 << 18
    """Pairs that the cache holds,"""
    pair_refresh: int = 2000
    """each encoded again after this many steps."""
    rehearsal_pairs: int = 4
    """Graded pairs of stage one that are learned again with each batch,"""
    rehearsal_weight: float = 0.1
    """at this weight."""
    monotonicity_weight: float = 0.1
    """Weight of semantic consistency: that clicks do not fall as relevance rises,"""
    stage_one_kl_weight: float = 1.0
    """and that the level distribution stays near that of stage one."""
    debias: str = "prior_adjustment+soft"
    """Exposure debias: `hinge` as published, `prior_adjustment`, or `prior_adjustment+soft`."""
    hard_negative_noise: float = 1.0
    """Size of the noise on a hard negative's embedding, in root mean squares of the embedding."""
    soft_target_weight: float = 0.05
    """Weight of the hard negatives that are drawn towards the query's click rate (`prior_adjustment+soft`),"""
    hinge_weight: float = 0.05
    """or of the pairwise hinge (`hinge`),"""
    hinge_margin: float = 0.5
    """with this margin a level, in log-odds,"""
    hinge_truncation: float = 2.0
    """which leaves out pairs that miss it by more than this."""
    exposure: str = "auto"
    """Whether a model is told how often, and how high, an item has been shown for the query: `on`, `off`, or `auto`:
    on in `prectr-v2`, as a part of cold-start mining. Of the others `wide-deep+` can be told."""
    exposure_sketch_size: int = 1 << 20
    """Rows of the sketch that counts it."""
    exposed_pairs_bits: int = 1 << 22
    """Bits for which items have been shown for which query, in the order of exposure."""

    @property
    def infers_levels(self) -> bool:
        """Whether the level that was logged is kept from the model."""
        return self.level_source == "inferred" or (self.level_source == "auto" and self.has_relevance_component)

    @property
    def has_relevance_component(self) -> bool:
        """Whether the model infers levels by itself."""
        return self.model.startswith("prectr")

    @property
    def reads_text(self) -> bool:
        """Whether a text encoder takes part."""
        if self.encoder == "auto":
            return self.infers_levels or self.has_relevance_component
        return self.encoder != "none"
