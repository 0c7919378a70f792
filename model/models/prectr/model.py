"""`prectr` and `prectr-v2`: click probability as a mixture over relevance levels inferred from the text.

`prectr` (PRECTR 2025): fusion, two-stage training, semantic consistency and the user's own relevance incentive; the
text encoder stays as stage one left it. `prectr-v2` (PRECTR-V2 2026) adds: joint training of the encoder; aggregates,
exposure and clicks of all users for the query (cold-start mining); exposure debias.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from prectr.model.config import TrainerConfig
from prectr.model.features.aggregate_features import (
    AGGREGATE_FEATURES,
    CENTERED_LEVELS,
    category_features,
    query_features,
    query_level_shares,
    recent_shifts,
    user_features,
)
from prectr.model.features.batch import Batch, FeatureNeeds
from prectr.model.features.exposed_pairs import ExposedPairs
from prectr.model.features.exposure import EXPOSURE_FEATURES, ExposureSketch
from prectr.model.features.hashed_features import Indices, position_table, recency_indices, recency_table, weight_table
from prectr.model.layers.gradients import Gradients
from prectr.model.layers.hashed_embedding import HashedEmbedding
from prectr.model.layers.linear import Linear
from prectr.model.layers.mlp import LOG_POSITION, POSITION_ONE_HOT, EmbeddingLayout, position_features
from prectr.model.layers.sparse_optimizers import ScAdagrad
from prectr.model.models.candidate_levels import borrow_logits
from prectr.model.models.dnn import embedding_table
from prectr.model.models.neural import NeuralModel, OnlineState
from prectr.model.models.online_model import ForwardOutput
from prectr.model.models.prectr.components import Components, components_of
from prectr.model.models.prectr.conditional import ConditionalClickModel, ConditionalInputs
from prectr.model.models.prectr.consistency import SemanticConsistency
from prectr.model.models.prectr.debias import ExposureDebias
from prectr.model.models.prectr.fusion import RelevanceFusion
from prectr.model.models.prectr.incentive import RelevanceIncentive
from prectr.model.models.prectr.linear_terms import AggregateTerm, ExposureTerms
from prectr.model.models.prectr.lookup import lookup_indices, split_embeddings, sum_linear_weights
from prectr.model.models.prectr.preference import Clicks
from prectr.model.models.prefixed_tensors import add_prefix, select_prefix
from prectr.model.quality.explanation import Explanation, sigmoid, to_numpy
from prectr.model.text.encoder.artifact import EncoderArtifact
from prectr.model.text.encoder.network import HIDDEN_SIZE, make_encoder
from prectr.model.text.pair_encoder import CachedPairEncoder, PairEncodings
from prectr.model.text.rehearsal import RehearsalBuffer, rehearsal_loss
from prectr.state.aggregates import LEVEL_COUNT

_PAIR_CACHE: Final = "pair_cache"
_POSITION_COLUMNS: Final = POSITION_ONE_HOT.stop - POSITION_ONE_HOT.start + 1
_SIMILARITY_COLUMNS: Final = 1
_MIN_LEVEL_WEIGHT: Final = 1e-6


@dataclass(frozen=True, slots=True)
class MixtureOutput:
    """A scored batch.

    log_odds: float32[N], of a click. conditional_logits: float32[N, 4], log-odds of a click given each level.
    log_levels: float32[N, 4], ln P(level). level_logits: float32[U, 4], of the distinct pairs.
    """

    log_odds: Tensor
    conditional_logits: Tensor
    log_levels: Tensor
    level_logits: Tensor
    inputs: ConditionalInputs


class Prectr(NeuralModel):
    """P(click | x) = Σᵢ P(click | level=i, x) · P(level=i | query, item)."""

    feature_needs = FeatureNeeds(history=True, query_history=True, texts=True)
    centered_levels: Tensor

    def __init__(self, config: TrainerConfig, device: torch.device, artifact: EncoderArtifact) -> None:
        """Initialise the model; `artifact` holds the stage-one encoder and graded pairs."""
        components = components_of(config)
        exposed_pairs = ExposedPairs(config.exposed_pairs_bits, device)
        exposure_sketch = ExposureSketch(config.exposure_sketch_size, device) if components.exposure else None
        online_states: dict[str, OnlineState] = {"exposed_pairs": exposed_pairs}
        if exposure_sketch is not None:
            online_states["exposure"] = exposure_sketch
        super().__init__(_tables(config, components, device), device, online_states)
        self._config = config
        self._components = components
        self._exposed_pairs = exposed_pairs
        self._exposure_sketch = exposure_sketch
        self._rehearsal = RehearsalBuffer(artifact.pairs, artifact.tokenizer, device, config.seed)
        self._add_modules(artifact)
        self._pair_encoder = CachedPairEncoder(
            artifact, config, device, self.encoder if components.joint_training else None
        )
        self.flatten_parameters(config.dense_lr, {"encoder": config.encoder_lr} if components.joint_training else {})

    def _add_modules(self, artifact: EncoderArtifact) -> None:
        """Create the submodules; creation order fixes the random draws."""
        config, components = self._config, self._components
        generator = torch.Generator().manual_seed(config.seed)
        centered_levels = torch.from_numpy(CENTERED_LEVELS.astype(np.float32))
        self.register_buffer("centered_levels", centered_levels, persistent=False)
        numeric_columns = (
            _POSITION_COLUMNS
            + _SIMILARITY_COLUMNS
            + LEVEL_COUNT * components.aggregates
            + AGGREGATE_FEATURES * components.aggregate_sources
            + EXPOSURE_FEATURES * components.exposure
        )
        self.conditional = ConditionalClickModel(config, numeric_columns, generator)
        self.relevance_head = Linear(HIDDEN_SIZE, LEVEL_COUNT, generator, bias=0.0)
        self.aggregates = (
            AggregateTerm(components.aggregate_sources, centered_levels, generator) if components.aggregates else None
        )
        self.incentive = (
            RelevanceIncentive(
                config.embedding_dim, AGGREGATE_FEATURES * components.aggregates, components.cold_start, generator
            )
            if components.incentive
            else None
        )
        self.exposure = ExposureTerms(centered_levels, generator) if components.exposure else None
        self.debias = ExposureDebias(config, self._rehearsal.level_shares) if components.debias else None
        self.consistency = (
            SemanticConsistency(config.monotonicity_weight, config.stage_one_kl_weight)
            if components.consistency
            else None
        )
        self.fusion = RelevanceFusion()
        self.encoder = (
            deepcopy(artifact.network) if components.pretraining else make_encoder(artifact.tokenizer, config.seed)
        )
        self.encoder.requires_grad_(components.joint_training)
        if components.two_stage and components.pretraining:
            self.relevance_head.load_state_dict(artifact.network.levels.state_dict())

    def indices(self, batch: Batch) -> dict[str, Indices]:
        """The rows of each table, as `lookup` lays them out."""
        config = self._config
        rows = lookup_indices(batch, config.embedding_rows, config.wide_rows, cold_start=self._components.cold_start)
        return rows | {"recency": recency_indices(batch)} if self._components.query_aggregates else rows

    def forward(self, batch: Batch) -> ForwardOutput:
        """Score the batch as shown, and compute the losses of that score."""
        encodings = self._pair_encoder.encode(batch, learn=True)
        gathered = self.gather_rows(batch)
        output = self._mix(batch, encodings, {name: rows.lookup() for name, rows in gathered.items()})
        state_updates = {**self.state_updates(batch), _PAIR_CACHE: encodings.cache_update}
        forward = ForwardOutput(output.log_odds.detach(), {}, gathered, state_updates)
        self._add_losses(forward, batch, encodings, output)
        return forward

    def zero_gradients(self) -> Gradients:
        """Zero gradients (empty batch)."""
        zero = super().zero_gradients()
        return replace(zero, state_updates={**zero.state_updates, _PAIR_CACHE: self._pair_encoder.empty_update()})

    def step(self, gradients: Gradients) -> None:
        """Update weights, online states and the pair cache."""
        self._pair_encoder.apply(gradients.state_updates[_PAIR_CACHE])
        super().step(gradients)

    def score(self, batch: Batch) -> Tensor:
        """Logits float32[N], without learning."""
        return self.mixture(batch).log_odds

    def mixture(self, batch: Batch) -> MixtureOutput:
        """Score a batch as `score` does, and keep the parts of the score."""
        with torch.no_grad():
            looked_up = self.read_rows(batch)
            return self._mix(batch, self._pair_encoder.encode(batch, learn=False), looked_up)

    def explain(self, batch: Batch) -> Explanation:
        """Score a batch, with the inferred levels, the conditional probabilities and the incentive."""
        output = self.mixture(batch)
        return Explanation(
            log_odds=to_numpy(output.log_odds),
            levels=np.exp(to_numpy(output.log_levels)),
            click_given_level=sigmoid(to_numpy(output.conditional_logits)),
            incentive=to_numpy(output.inputs.incentive) if self.incentive is not None else None,
            rates=batch.rates,
            learned_levels=self.learned_levels(),
        )

    def training_state(self) -> dict[str, Tensor]:
        """Tables, dense parameters, online states, and the pair cache."""
        return super().training_state() | add_prefix(f"{_PAIR_CACHE}.", self._pair_encoder.state_dict())

    def load_training_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `training_state` returned. CheckpointError: it was trained with another encoder."""
        self._pair_encoder.load_state_dict(select_prefix(f"{_PAIR_CACHE}.", tensors))
        super().load_training_state(tensors)

    def _mix(self, batch: Batch, encodings: PairEncodings, looked_up: Mapping[str, Tensor]) -> MixtureOutput:
        """Fuse P(click | level, x) with P(level | query, item)."""
        inputs = self._conditional_inputs(batch, encodings, looked_up)
        pair_embeddings = encodings.pair_embedding.index_select(0, encodings.inverse)
        conditional = self.conditional(batch, inputs, pair_embeddings)
        if not batch.exposed:
            conditional = borrow_logits(conditional, self.learned_levels())
        level_logits = self.relevance_head(encodings.pair_embedding)
        impression_level_logits = level_logits.index_select(0, encodings.inverse)
        if self.exposure is not None and inputs.exposure_features is not None:
            impression_level_logits = impression_level_logits + self.exposure.level_logits(inputs.exposure_features)
        log_levels = self._log_levels(batch, impression_level_logits)
        return MixtureOutput(self.fusion(conditional, log_levels), conditional, log_levels, level_logits, inputs)

    def _log_levels(self, batch: Batch, level_logits: Tensor) -> Tensor:
        """ln P(level), float32[N, 4]; the prior is adjusted for items shown, now or earlier for the query."""
        if not self._config.infers_levels:
            return self.tensor(batch.level_weights).clamp(min=_MIN_LEVEL_WEIGHT).log()
        if self.debias is None or not self.debias.adjusts_prior:
            return torch.log_softmax(level_logits, dim=1)
        ones = torch.ones(batch.impressions, dtype=torch.bool, device=self._device)
        exposed_shares = (
            query_level_shares(batch, self._config.smoothing)
            if self._components.query_aggregates
            else batch.rates.exposed_level_shares
        )
        return self.debias.log_levels(
            level_logits, self.tensor(exposed_shares), ones if batch.exposed else self._exposed_pairs.contains(batch)
        )

    def _conditional_inputs(
        self, batch: Batch, encodings: PairEncodings, looked_up: Mapping[str, Tensor]
    ) -> ConditionalInputs:
        embedded, query_click_embeddings = split_embeddings(batch, looked_up["embedding"])
        linear_terms = sum_linear_weights(batch, looked_up, self.centered_levels)
        similarity = encodings.similarity.detach().index_select(0, encodings.inverse).unsqueeze(1)
        category, query, user = self._aggregate_features(batch)
        numeric_features = [similarity, *category, *query, *user]
        exposure_features = None
        if self.exposure is not None and self._exposure_sketch is not None:
            exposure_features = self.tensor(self._exposure_sketch.features(batch))
            numeric_features.append(exposure_features)
            linear_terms = linear_terms + self.exposure.click_log_odds(exposure_features)
        if self.aggregates is not None:
            linear_terms = linear_terms + self.aggregates(category[0], [*query, *user])
        if self._components.query_aggregates:
            linear_terms = linear_terms + self._recency_term(batch, looked_up["recency"])
        incentive = torch.zeros_like(linear_terms)
        if self.incentive is not None:
            layout = EmbeddingLayout.of(batch)
            no_features = incentive.new_zeros(batch.impressions, 0)
            incentive = self.incentive(
                batch,
                embedded[layout.query],
                _user_clicks(batch, embedded, layout),
                _query_clicks(batch, query_click_embeddings) if self._components.cold_start else None,
                user[0] if user else no_features,
                query[0] if query else no_features,
            )
        return ConditionalInputs(
            embedded,
            self._position_features(batch),
            torch.cat(numeric_features, dim=1),
            linear_terms + incentive,
            incentive,
            exposure_features,
        )

    def _recency_term(self, batch: Batch, weights: Tensor) -> Tensor:
        """float32[N, 4]: the query's recent shifts at each level, weighted; weights: float32[H, 1]."""
        intercept, slope = (self.tensor(shift) @ weights for shift in recent_shifts(batch))
        return intercept + slope * self.centered_levels

    def _position_features(self, batch: Batch) -> Tensor:
        """float32[N, 21]: the position features without the level, which the mixture is over."""
        features = position_features(batch)
        return self.tensor(np.concatenate([features[:, POSITION_ONE_HOT], features[:, LOG_POSITION]], axis=1))

    def _aggregate_features(self, batch: Batch) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Of category, query and user: one tensor each, or none where the component is off."""
        if not self._components.aggregates:
            return [], [], []
        query = [self.tensor(query_features(batch))] if self._components.query_aggregates else []
        return [self.tensor(category_features(batch))], query, [self.tensor(user_features(batch))]

    def _add_losses(
        self, forward: ForwardOutput, batch: Batch, encodings: PairEncodings, output: MixtureOutput
    ) -> None:
        config, components, losses = self._config, self._components, forward.losses
        step = self._pair_encoder.step
        losses["click"] = binary_cross_entropy_with_logits(output.log_odds, self.tensor(batch.labels))
        if self.consistency is not None:
            losses["monotonicity"] = self.consistency.monotonicity(output.conditional_logits)
        if not config.infers_levels:
            return
        if self.consistency is not None and components.stage_one_kl:
            stage_one = encodings.stage_one_logits
            log_levels = torch.log_softmax(output.level_logits.index_select(0, encodings.anchor_index), dim=1)
            losses["stage_one_kl"] = self.consistency.stage_one(log_levels, stage_one)
            keys = encodings.keys[encodings.anchor_index.cpu().numpy()]
            reduction = self.consistency.stage_one_reduction(keys, log_levels, stage_one)
            forward.loss_reductions["stage_one_kl"] = reduction
        if components.two_stage and len(self._rehearsal):
            tokens, levels = self._rehearsal.sample(config.rehearsal_pairs, step)
            loss = rehearsal_loss(self.encoder, self.relevance_head, tokens, levels)
            losses["rehearsal"] = config.rehearsal_weight * loss
        if self.debias is not None and self.debias.uses_hard_negatives:
            pair_embeddings = encodings.pair_embedding.index_select(0, encodings.inverse)
            debias = self.debias(
                batch,
                output.log_levels,
                output.log_odds,
                pair_embeddings,
                lambda noisy: self.conditional(batch, output.inputs, noisy),
                step,
            )
            losses["debias"] = debias.loss
            forward.loss_reductions["debias"] = debias.reduction
            forward.counts |= debias.counts


def _tables(config: TrainerConfig, components: Components, device: torch.device) -> dict[str, HashedEmbedding]:
    tables = {
        "embedding": embedding_table(config, device),
        "position": position_table(config, device),
        "wide": weight_table(config, ScAdagrad(config.wide_prior), device),
        "slope": weight_table(config, ScAdagrad(config.slope_prior), device),
    }
    if components.cold_start:
        tables["pair"] = weight_table(config, ScAdagrad(config.pair_prior), device)
    if components.query_aggregates:
        tables["recency"] = recency_table(config, device)
    return tables


def _user_clicks(batch: Batch, embedded: Tensor, layout: EmbeddingLayout) -> Clicks:
    history = batch.history
    items = embedded[layout.past_item] + embedded[layout.past_group]
    return Clicks(items, history.page_of, history.level, history.age_days, history.query_overlap)


def _query_clicks(batch: Batch, query_click_embeddings: Tensor) -> Clicks:
    """Clicks for the page's own query, so that the overlap of queries is no evidence: it is set to 0."""
    history = batch.query_history
    clicks = len(history.item)
    items = query_click_embeddings[:clicks] + query_click_embeddings[clicks:]
    return Clicks(items, history.page_of, history.level, history.age_days, np.zeros(clicks))
