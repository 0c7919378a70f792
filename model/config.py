"""The settings that decide what the trainer learns; part of the identity of every checkpoint."""

from dataclasses import dataclass
from typing import Annotated, Final

from prectr.state.setting import YEAR, Setting

MODEL_NAMES: Final = ("lr", "dnn", "wide-deep", "wide-deep+", "prectr", "prectr-v2")
"""Of `prectr.model.models.registry`, which imports torch."""
VOCAB_SIZE: Final = 8_000
"""Tokens at most; few texts give fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerConfig:
    """Settings of the trainer. Durations are in seconds of event time (close time)."""

    model: Annotated[str, Setting(help="The ranker to train.", choices=MODEL_NAMES)] = "prectr-v2"
    without: Annotated[
        tuple[str, ...], Setting(help="Components of `prectr` or `prectr-v2` to switch off (ablation).")
    ] = ()
    batch_pages: Annotated[
        int,
        Setting(
            help="A training batch ends after this many pages, or after `batch_span`, whichever comes first.",
            unit="pages",
            ge=1,
            le=1 << 16,
        ),
    ] = 16
    batch_span: Annotated[
        float,
        Setting(
            help="Maximum span of close times in a batch. A replay of a sparse log with a model that reads text takes "
            "1d unless it is set.",
            unit="s",
            ge=0.001,
            le=100 * YEAR,
        ),
    ] = 60.0
    seed: Annotated[
        int, Setting(help="Seed of the initial weights and of everything random in training.", ge=0, le=(1 << 32) - 1)
    ] = 0
    device: Annotated[
        str,
        Setting(
            help="Where to train; `auto`: CUDA if there is a GPU.",
            choices=("auto", "cpu", "cuda"),
        ),
    ] = "auto"
    threads: Annotated[
        int,
        Setting(
            help="CPU threads of a training step; 0: torch decides. Changing it may change the last bits of results.",
            ge=0,
            le=1024,
        ),
    ] = 1
    embedding_rows: Annotated[
        int, Setting(help="Rows of the hashed embedding table that all ids share.", unit="rows", ge=4096, le=1 << 30)
    ] = 1 << 18
    embedding_dim: Annotated[int, Setting(help="Width of an embedding.", ge=1, le=4096)] = 8
    embedding_lr: Annotated[float, Setting(help="Learning rate of the embeddings (Adagrad).", ge=1e-6, le=10)] = 0.1
    embedding_scale: Annotated[
        float, Setting(help="Embeddings are initialised uniformly in ± this value.", ge=0, le=10)
    ] = 0.01
    hidden: Annotated[
        tuple[int, ...], Setting(help="Widths of the hidden layers of the deep part.", ge=1, le=1 << 16)
    ] = (64, 32)
    dense_lr: Annotated[float, Setting(help="Learning rate of the dense layers (Adam).", ge=1e-6, le=1)] = 0.001
    wide_rows: Annotated[
        int, Setting(help="Rows of each hashed table of linear weights.", unit="rows", ge=4096, le=1 << 30)
    ] = 1 << 18
    position_ftrl_alpha: Annotated[
        float,
        Setting(
            help="α of FTRL-Proximal for the weights of position and level; the step is α/(β + √Σg²).", ge=1e-6, le=100
        ),
    ] = 0.3
    position_ftrl_beta: Annotated[
        float, Setting(help="β of FTRL-Proximal for the weights of position and level.", ge=1e-6, le=1e6)
    ] = 1.0
    ftrl_alpha: Annotated[
        float, Setting(help="α of FTRL-Proximal for the weights of ids in `lr`.", ge=1e-6, le=100)
    ] = 0.3
    ftrl_beta: Annotated[float, Setting(help="β of FTRL-Proximal for the weights of ids in `lr`.", ge=1e-6, le=1e6)] = (
        5.0
    )
    wide_ftrl_alpha: Annotated[
        float, Setting(help="α of FTRL-Proximal for the wide part of `wide-deep`.", ge=1e-6, le=100)
    ] = 0.1
    wide_ftrl_beta: Annotated[
        float, Setting(help="β of FTRL-Proximal for the wide part of `wide-deep`.", ge=1e-6, le=1e6)
    ] = 2.0
    ftrl_l1: Annotated[
        float, Setting(help="λ1 of FTRL-Proximal, which keeps weights of little use at zero.", ge=0, le=1e6)
    ] = 0.0
    ftrl_l2: Annotated[float, Setting(help="λ2 of FTRL-Proximal, which draws weights towards zero.", ge=0, le=1e6)] = (
        0.0
    )
    wide_prior: Annotated[
        float,
        Setting(
            help="Prior of SC-Adagrad for the linear weights of `wide-deep+`, `prectr` and `prectr-v2`, in "
            "units of Σg².",
            ge=0.01,
            le=1e9,
        ),
    ] = 32.0
    slope_prior: Annotated[
        float,
        Setting(
            help="Prior of SC-Adagrad for the slopes of users and queries over the relevance level.", ge=0.01, le=1e9
        ),
    ] = 16.0
    pair_prior: Annotated[
        float,
        Setting(help="Prior of SC-Adagrad for the weights of an item under a query (`prectr-v2`).", ge=0.01, le=1e9),
    ] = 24.0
    recency_prior: Annotated[
        float,
        Setting(
            help="Prior of SC-Adagrad for the weights of a query's recent shifts (`wide-deep+`, `prectr-v2`).",
            ge=0.01,
            le=1e9,
        ),
    ] = 50.0
    recency_forgetting: Annotated[
        float,
        Setting(
            help="Share of Σg² that the weights of recent shifts forget with every batch, so that they adapt within "
            "1/share batches when clicks change; 0: nothing.",
            ge=0,
            le=1,
        ),
    ] = 0.04
    prior_rates_size: Annotated[
        int,
        Setting(
            help="Rows for the click rates by category, the parents of the rates by query and user.",
            unit="rows",
            ge=1,
            le=1 << 30,
        ),
    ] = 4096
    smoothing: Annotated[
        float,
        Setting(
            help="Prior strength, in impressions, of a parent's click rate in the rates of its children.",
            unit="impressions",
            ge=0.001,
            le=1e9,
        ),
    ] = 20.0
    level_source: Annotated[
        str,
        Setting(
            help="Relevance level that a model reads: as logged, inferred from the text, or `auto`: "
            "inferred by `prectr` and `prectr-v2`, logged for the others.",
            choices=("auto", "logged", "inferred"),
        ),
    ] = "auto"
    encoder: Annotated[
        str,
        Setting(
            help="Text encoder: `none`, `shipped`, the folder of another, or `auto`: the shipped one for "
            "models that read text."
        ),
    ] = "auto"
    encoder_lr: Annotated[
        float, Setting(help="Learning rate of the encoder in joint training (Adam).", ge=1e-8, le=1)
    ] = 0.0001
    encoder_share: Annotated[
        float,
        Setting(
            help="Share of the distinct pairs of a batch that the encoder learns from; the others are read "
            "from the pair cache. 1: all.",
            ge=0,
            le=1,
        ),
    ] = 0.02
    pair_cache_size: Annotated[
        int, Setting(help="Capacity of the cache of pair embeddings.", unit="pairs", ge=1, le=1 << 30)
    ] = 1 << 18
    pair_refresh: Annotated[
        int, Setting(help="Training steps after which a cached pair is encoded again.", unit="steps", ge=1, le=1 << 30)
    ] = 2000
    rehearsal_pairs: Annotated[
        int, Setting(help="Graded pairs of stage one that each batch replays.", unit="pairs", ge=1, le=1 << 16)
    ] = 4
    rehearsal_weight: Annotated[
        float, Setting(help="Weight of the loss of the replayed pairs of stage one.", ge=0, le=1000)
    ] = 0.1
    monotonicity_weight: Annotated[
        float,
        Setting(
            help="Weight of the hinge that keeps clicks from falling as relevance rises (semantic consistency).",
            ge=0,
            le=1000,
        ),
    ] = 0.1
    stage_one_kl_weight: Annotated[
        float,
        Setting(
            help="Weight of the KL divergence between the level distribution and that of stage one.", ge=0, le=1000
        ),
    ] = 1.0
    debias: Annotated[
        str,
        Setting(
            help="Exposure debias: `hinge` as published, `prior_adjustment` (logit adjustment), or that "
            "with soft targets for hard negatives.",
            choices=("hinge", "prior_adjustment", "prior_adjustment+soft"),
        ),
    ] = "prior_adjustment+soft"
    hard_negative_noise: Annotated[
        float,
        Setting(
            help="Noise on the embedding of a hard negative, relative to the root mean square of the embedding.",
            ge=0,
            le=1000,
        ),
    ] = 1.0
    soft_target_weight: Annotated[
        float,
        Setting(
            help="Weight of the loss that draws hard negatives towards the query's click rate "
            "(`prior_adjustment+soft`).",
            ge=0,
            le=1000,
        ),
    ] = 0.05
    hinge_weight: Annotated[float, Setting(help="Weight of the pairwise hinge (`hinge`).", ge=0, le=1000)] = 0.05
    hinge_margin: Annotated[
        float, Setting(help="Margin of the hinge per level of difference.", unit="log-odds", ge=0, le=1000)
    ] = 0.5
    hinge_truncation: Annotated[
        float,
        Setting(
            help="The hinge leaves out pairs that violate the margin by more than this.", unit="log-odds", ge=0, le=1000
        ),
    ] = 2.0
    exposure: Annotated[
        str,
        Setting(
            help="Whether a model reads how often, and how high, an item was shown for the query; `auto`: "
            "on in `prectr-v2` (cold-start mining). `wide-deep+` can read it too.",
            choices=("auto", "on", "off"),
        ),
    ] = "auto"
    exposure_sketch_size: Annotated[
        int, Setting(help="Rows of the sketch that counts exposures.", unit="rows", ge=1, le=1 << 30)
    ] = 1 << 20
    exposed_pairs_bits: Annotated[
        int, Setting(help="Bits of the Bloom filter of the items shown for each query.", unit="bits", ge=1, le=1 << 33)
    ] = 1 << 22
    item_features: Annotated[
        tuple[str, ...],
        Setting(
            help="Custom features of items (`features` of an item) that the models read, by name; `auto`: all, in the "
            "order first seen, up to `feature_limit`; `none`: none."
        ),
    ] = ("auto",)
    page_features: Annotated[tuple[str, ...], Setting(help="The same for `features` of the page.")] = ("auto",)
    context_features: Annotated[tuple[str, ...], Setting(help="The same for `context` of the page.")] = ("auto",)
    feature_limit: Annotated[
        int,
        Setting(
            help="Custom features at most that `auto` reads of items, of pages and of contexts each; a name with "
            "numbers and strings counts twice.",
            unit="features",
            ge=1,
            le=4096,
        ),
    ] = 64

    @property
    def infers_levels(self) -> bool:
        """Whether levels are inferred from the text; the logged ones are then not read."""
        return self.level_source == "inferred" or (self.level_source == "auto" and self.has_relevance_component)

    @property
    def has_relevance_component(self) -> bool:
        """Whether the model has a relevance component, which infers levels."""
        return self.model.startswith("prectr")

    @property
    def reads_text(self) -> bool:
        """Whether a text encoder is used."""
        if self.encoder == "auto":
            return self.infers_levels or self.has_relevance_component
        return self.encoder != "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig:
    """Settings of pre-training, stage one of the text encoder; part of the encoder's provenance."""

    seed: Annotated[
        int, Setting(help="Seed of the initial weights and of the order of the pairs.", ge=0, le=(1 << 32) - 1)
    ] = 0
    vocab_size: Annotated[int, Setting(help="Greatest size of the vocabulary.", unit="tokens", ge=100, le=1 << 20)] = (
        VOCAB_SIZE
    )
    batch_size: Annotated[int, Setting(help="Pairs of a training step.", unit="pairs", ge=1, le=1 << 16)] = 64
    temperature: Annotated[
        float,
        Setting(
            help="Temperature of distillation: above 1, small probabilities of the teacher count for more.",
            ge=0.01,
            le=1000,
        ),
    ] = 2.0
    vector_weight: Annotated[
        float,
        Setting(
            help="Weight of the cosine loss against the teacher's vectors, where the labels have them.", ge=0, le=1000
        ),
    ] = 1.0
    distil_epochs: Annotated[int, Setting(help="Epochs over the labelled pairs.", ge=1, le=1 << 16)] = 8
    distil_lr: Annotated[float, Setting(help="Learning rate of distillation.", ge=1e-10, le=1)] = 1e-3
    tune_epochs: Annotated[int, Setting(help="Greatest number of epochs over the graded pairs.", ge=1, le=1 << 16)] = 40
    tune_lr: Annotated[float, Setting(help="Learning rate of fine-tuning.", ge=1e-10, le=1)] = 5e-4
    patience: Annotated[
        int,
        Setting(
            help="Fine-tuning stops after this many epochs without a better log loss on the held-out queries.",
            unit="epochs",
            ge=1,
            le=1 << 16,
        ),
    ] = 5
    held_out: Annotated[
        float,
        Setting(
            help="Share of the graded queries that is held out; 0: train on all of them, for `tune_epochs` epochs.",
            ge=0,
            le=0.9,
        ),
    ] = 0.1
    mask_probability: Annotated[
        float,
        Setting(help="Share of the tokens that fine-tuning masks, drawn again in each epoch.", ge=0, le=0.9),
    ] = 0.1
