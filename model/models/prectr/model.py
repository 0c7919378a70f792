"""`prectr` and `prectr-v2`: click probability as a mixture over relevance levels that the text tells.

`prectr` (PRECTR 2025): fusion, two-stage training, semantic consistency and the user's own relevance incentive; the
text encoder stays as stage one left it. `prectr-v2` (PRECTR-V2 2026) besides: the encoder learns on, jointly;
aggregates, exposure and clicks of all users for the query (cold-start mining); exposure debias.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from prectr.model.config import TrainerConfig
from prectr.model.features.aggregate_features import (
    AGGREGATE_FEATURES,
    CENTERED_LEVELS,
    category_features,
    query_features,
    query_level_shares,
    user_features,
)
from prectr.model.features.batch import Batch, FeatureNeeds
from prectr.model.features.exposed_pairs import ExposedPairs
from prectr.model.features.exposure import EXPOSURE_FEATURES, LEVEL_FEATURES, ExposureSketch
from prectr.model.features.hashed_features import (
    Indices,
    cross_indices_per_level,
    group_indices,
    id_indices,
    level_indices,
    pair_indices,
    position_indices,
    position_table,
    slope_indices,
    weight_table,
)
from prectr.model.features.hashing import row_indices as hashed_rows
from prectr.model.features.smoothing import LEVELS
from prectr.model.layers.flat_parameters import FlatParameters, ParameterSpec
from prectr.model.layers.gradients import Gradients
from prectr.model.layers.hashed_embedding import ScAdagrad
from prectr.model.layers.mlp import DeepComponent, embedding_indices, position_features
from prectr.model.models.dnn import embedding_table
from prectr.model.models.neural import NeuralModel, OnlineState
from prectr.model.models.online_model import ForwardOutput, LossReduction
from prectr.model.models.prectr.components import components_of
from prectr.model.models.prectr.consistency import monotonicity_loss, stage_one_kl, stage_one_kl_per_pair
from prectr.model.models.prectr.debias import (
    adjust_prior,
    hard_negatives,
    hinge_loss,
    margin_violation,
    soft_target_loss,
    within_truncation,
)
from prectr.model.models.prectr.fusion import fused_log_odds
from prectr.model.models.prectr.incentive import RelevanceIncentive
from prectr.model.quality.explanation import Explanation, as_numpy, sigmoid
from prectr.model.text.encoder.network import HIDDEN_SIZE, make_encoder
from prectr.model.text.pair_encoder import CachedPairEncoder, PairEncodings, open_encoder
from prectr.model.text.rehearsal import RehearsalBuffer, rehearsal_loss

_PAIRS: Final = "pairs"
_TEXT_FEATURES: Final = 16
_FEATURES_PER_LEVEL: Final = 3
_INITIAL_EXPOSURE_SLOPE: Final = 1.0
"""By how much each level more is likelier, in log-odds, for each log-odds more of being shown: where learning starts
from, since a ranker that writes a log shows what it takes for relevant (reconstruction)."""


@dataclass(frozen=True, slots=True)
class ConditionalInputs:
    """What makes the conditional log-odds of a batch, but for text and place: used again for hard negatives.

    embedded: float32[2·P + 4·N + 2·H, dim]. numbers: float32[N, any]. rest: float32[N, 4], all that is added to what
    the network says. tau: float32[N, 4], the incentive, a part of `rest`.
    """

    embedded: Tensor
    position_features: Tensor
    numeric_features: Tensor
    linear_terms: Tensor
    incentive: Tensor
    exposure_features: Tensor | None


@dataclass(frozen=True, slots=True)
class MixtureOutput:
    """A batch, scored. log_odds: float32[N]. conditional: float32[N, 4]. log_levels: float32[N, 4]."""

    log_odds: Tensor
    conditional_logits: Tensor
    log_levels: Tensor
    level_logits: Tensor
    inputs: ConditionalInputs


class Prectr(NeuralModel):
    """Four conditional click models over shared features, mixed by P(level) of the text."""

    feature_needs = FeatureNeeds(history=True, query_history=True, texts=True)

    def __init__(self, config: TrainerConfig, device: torch.device) -> None:
        self._config = config
        self._components = components = components_of(config)
        artifact = open_encoder(config)
        initial_encoder = (
            deepcopy(artifact.network) if components.pretraining else make_encoder(artifact.tokenizer, config.seed)
        )
        self._encoder = initial_encoder.to(device)
        self._pair_encoder = CachedPairEncoder(
            artifact, config, device, self._encoder if components.joint_training else None
        )
        self._rehearsal = RehearsalBuffer(artifact.pairs, artifact.tokenizer, device, config.seed)
        self._candidate_shares = self._rehearsal.level_shares
        self._exposed_pairs = ExposedPairs(config.exposed_pairs_bits, device)
        online_states: dict[str, OnlineState] = {"shown": self._exposed_pairs}
        self._exposure_sketch = ExposureSketch(config.exposure_sketch_size, device) if components.exposure else None
        if self._exposure_sketch is not None:
            online_states["exposure"] = self._exposure_sketch
        self._uses_query_aggregates = components.aggregates and components.cold_start
        aggregate_sources = components.aggregates + self._uses_query_aggregates
        columns = (
            LEVELS * components.aggregates
            + AGGREGATE_FEATURES * aggregate_sources
            + EXPOSURE_FEATURES * components.exposure
            + 1
        )
        self._deep = DeepComponent(
            config.embedding_dim, config.hidden, _POSITION_COLUMNS + _TEXT_FEATURES + columns, outputs=LEVELS
        )
        self._incentive = RelevanceIncentive(
            config.embedding_dim, AGGREGATE_FEATURES * components.aggregates, components.cold_start
        )
        specs = {
            **self._deep.parameter_specs(),
            "text.weight": ParameterSpec((_TEXT_FEATURES, HIDDEN_SIZE), HIDDEN_SIZE**-0.5),
            "text.bias": ParameterSpec.zeros(_TEXT_FEATURES),
            "level.weight": ParameterSpec.zeros(LEVELS, HIDDEN_SIZE),
            "level.bias": ParameterSpec.zeros(LEVELS),
            "straight": ParameterSpec.zeros(components.aggregates + _FEATURES_PER_LEVEL * aggregate_sources),
            **(self._incentive.parameter_specs() if components.incentive else {}),
        }
        if components.exposure:
            specs["exposure.straight"] = ParameterSpec.zeros(1, EXPOSURE_FEATURES)
            specs["exposure.level"] = ParameterSpec.zeros(LEVELS, LEVEL_FEATURES)
        dense = FlatParameters(
            specs,
            lr=config.dense_lr,
            seed=config.seed,
            device=device,
            module=("encoder", self._encoder, config.encoder_lr) if components.joint_training else None,
        )
        if components.two_stage and components.pretraining:
            with torch.no_grad():
                dense["level.weight"].copy_(artifact.network.levels.weight)
                dense["level.bias"].copy_(artifact.network.levels.bias)
        self._centered_levels = torch.from_numpy(CENTERED_LEVELS.astype(np.float32)).to(device)
        if components.exposure:
            with torch.no_grad():
                dense["exposure.level"][:, 0] = _INITIAL_EXPOSURE_SLOPE * self._centered_levels
        super().__init__(
            {
                "embedding": embedding_table(config, device),
                "place": position_table(config, device),
                "wide": weight_table(config, ScAdagrad(config.wide_prior), device),
                "slope": weight_table(config, ScAdagrad(config.slope_prior), device),
                **(
                    {"pair": weight_table(config, ScAdagrad(config.pair_prior), device)}
                    if components.cold_start
                    else {}
                ),
            },
            dense,
            device,
            online_states,
        )

    def indices(self, batch: Batch) -> dict[str, Indices]:
        """Rows, each table's in one line: what `_conditional` takes apart."""
        size, wide = self._config.embedding_rows, self._config.wide_rows
        embedding = [embedding_indices(batch, size)]
        if self._components.cold_start:
            clicks = batch.query_history
            embedding += [hashed_rows(clicks.item, "item", size), hashed_rows(clicks.group, "group", size)]
        ids = np.concatenate([id_indices(batch, wide), group_indices(batch, wide)], axis=1)
        return {
            "embedding": np.concatenate(embedding),
            "place": np.concatenate([position_indices(batch)[:, :2].ravel(), level_indices()]),
            "wide": np.concatenate([ids.ravel(), cross_indices_per_level(batch, wide).ravel()]),
            "slope": slope_indices(batch, wide),
            **({"pair": pair_indices(batch, wide)} if self._components.cold_start else {}),
        }

    def forward(self, batch: Batch) -> ForwardOutput:
        """One pass over what was shown."""
        encodings = self._pair_encoder.encode(batch, learn=True)
        gathered = {name: self._tables[name].gather(rows) for name, rows in self.indices(batch).items()}
        looked_up = {name: table_rows.lookup() for name, table_rows in gathered.items()}
        output = self._mix(batch, encodings, looked_up)
        state_updates = {**self.state_updates(batch), _PAIRS: encodings.cache_update}
        forward = ForwardOutput(output.log_odds.detach(), {}, gathered, state_updates)
        self._add_losses(forward, batch, encodings, output)
        return forward

    def zero_gradients(self) -> Gradients:
        """Of no pages."""
        none = super().zero_gradients()
        return replace(none, tables={**none.tables, _PAIRS: self._pair_encoder.empty_update()})

    def step(self, gradients: Gradients) -> None:
        """Learn, and remember."""
        self._pair_encoder.apply(gradients.tables[_PAIRS])
        super().step(gradients)

    def score(self, batch: Batch) -> Tensor:
        """Logits float32[N], nothing learned."""
        return self.mixture(batch).log_odds

    def mixture(self, batch: Batch) -> MixtureOutput:
        """A batch scored as `score` does, with what the score is made of; nothing learned."""
        with torch.no_grad():
            looked_up = {name: self._tables[name].read(rows) for name, rows in self.indices(batch).items()}
            encodings = self._pair_encoder.encode(batch, learn=False)
            return self._mix(batch, encodings, looked_up)

    def explain(self, batch: Batch) -> Explanation:
        """As `explanation.explain` asks: the levels as inferred, the conditional probabilities, the incentive."""
        output = self.mixture(batch)
        return Explanation(
            log_odds=as_numpy(output.log_odds),
            levels=np.exp(as_numpy(output.log_levels)),
            click_given_level=sigmoid(as_numpy(output.conditional_logits)),
            incentive=as_numpy(output.inputs.incentive) if self._components.incentive else None,
            rates=batch.rates,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Tables, dense parameters, memories, and the cache of pairs."""
        exported = super().state_dict()
        exported.update({f"pairs.{name}": tensor for name, tensor in self._pair_encoder.state_dict().items()})
        return exported

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Take up what `export` gave. ValueError: it was made with another encoder."""
        pairs = {name.removeprefix("pairs."): each for name, each in tensors.items() if name.startswith("pairs.")}
        self._pair_encoder.load_state_dict(pairs)
        super().load_state_dict(tensors)

    def _mix(self, batch: Batch, encodings: PairEncodings, looked_up: Mapping[str, Tensor]) -> MixtureOutput:
        inputs = self._conditional_inputs(batch, encodings, looked_up)
        conditional = self._conditional_logits(
            batch, inputs, encodings.pair_embedding.index_select(0, encodings.inverse)
        )
        level_logits = torch.nn.functional.linear(
            encodings.pair_embedding, self._dense["level.weight"], self._dense["level.bias"]
        )
        impression_level_logits = level_logits.index_select(0, encodings.inverse)
        if inputs.exposure_features is not None:
            level_features = inputs.exposure_features[:, :LEVEL_FEATURES]
            impression_level_logits = impression_level_logits + torch.nn.functional.linear(
                level_features, self._dense["exposure.level"]
            )
        log_levels = self._log_levels(batch, impression_level_logits)
        return MixtureOutput(fused_log_odds(conditional, log_levels), conditional, log_levels, level_logits, inputs)

    def _log_levels(self, batch: Batch, level_logits: Tensor) -> Tensor:
        """ln P(level), float32[N, 4]; `prior_adjustment` is for what is shown, or has been for the query before."""
        if not self._config.infers_levels:
            return self.tensor(batch.level_weights).clamp(min=1e-6).log()
        if self._components.debias and self._config.debias.startswith("prior_adjustment"):
            ones = torch.ones(batch.impressions, dtype=torch.bool, device=self._device)
            is_exposed = ones if batch.exposed else self._exposed_pairs.contains(batch)
            exposed_shares = (
                query_level_shares(batch, self._config.smoothing)
                if self._uses_query_aggregates
                else batch.rates.exposed_level_shares
            )
            return adjust_prior(level_logits, self.tensor(exposed_shares), self._candidate_shares, is_exposed)
        return torch.log_softmax(level_logits, dim=1)

    def _conditional_inputs(
        self, batch: Batch, encodings: PairEncodings, looked_up: Mapping[str, Tensor]
    ) -> ConditionalInputs:
        pages, impressions = batch.pages, batch.impressions
        page_of = torch.from_numpy(batch.page_of).to(self._device)
        clicks = len(batch.history.item)
        query_clicks_offset = 2 * pages + 4 * impressions + 2 * clicks
        embedded, query_click_embeddings = (
            looked_up["embedding"][:query_clicks_offset],
            looked_up["embedding"][query_clicks_offset:],
        )
        position_weights = looked_up["place"][:, 0]
        wide = looked_up["wide"][:, 0]
        ids, crosses = wide[: 6 * impressions].view(impressions, 6), wide[6 * impressions :].view(pages, 2, LEVELS)
        slope = looked_up["slope"].sum(dim=(1, 2)).unsqueeze(1) * self._centered_levels
        linear_terms = (
            position_weights[: 2 * impressions].view(impressions, 2).sum(dim=1, keepdim=True)
            + position_weights[2 * impressions :]
            + ids.sum(dim=1, keepdim=True)
            + crosses.sum(dim=1).index_select(0, page_of)
            + slope
        )
        if self._components.cold_start:
            linear_terms = linear_terms + looked_up["pair"]
        category, query, user = self._aggregates(batch)
        numeric_features = [
            encodings.similarity.detach().index_select(0, encodings.inverse).unsqueeze(1),
            *category,
            *query,
            *user,
        ]
        exposure_features = (
            None if self._exposure_sketch is None else self.tensor(self._exposure_sketch.features(batch))
        )
        if exposure_features is not None:
            numeric_features.append(exposure_features)
            linear_terms = linear_terms + torch.nn.functional.linear(
                exposure_features, self._dense["exposure.straight"]
            )
        direct = [each.unsqueeze(2) for each in category]
        direct += [self._per_level(each) for each in (*query, *user)]
        if direct:
            linear_terms = linear_terms + torch.cat(direct, dim=2) @ self._dense["straight"]
        incentive = torch.zeros_like(linear_terms)
        if self._components.incentive:
            incentive = self._incentive_log_odds(batch, embedded, query_click_embeddings, query, user)
        return ConditionalInputs(
            embedded,
            self._position_features(batch),
            torch.cat(numeric_features, dim=1),
            linear_terms + incentive,
            incentive,
            exposure_features,
        )

    def _incentive_log_odds(
        self, batch: Batch, embedded: Tensor, query_click_embeddings: Tensor, query: list[Tensor], user: list[Tensor]
    ) -> Tensor:
        pages, clicks = batch.pages, len(batch.history.item)
        query_embeddings = embedded[pages : 2 * pages]
        items, groups = embedded[len(embedded) - 2 * clicks :].chunk(2) if clicks else (embedded[:0], embedded[:0])
        no_features = query_embeddings.new_zeros(batch.impressions, 0)
        incentive = self._incentive
        preference = incentive.user_preference(
            batch, query_embeddings, items + groups, user[0] if user else no_features, self._dense
        )
        if self._components.cold_start:
            items, groups = (
                query_click_embeddings.chunk(2)
                if len(query_click_embeddings)
                else (query_click_embeddings, query_click_embeddings)
            )
            global_preference = incentive.global_preference(
                batch, query_embeddings, items + groups, query[0] if query else no_features, self._dense
            )
            gate = incentive.gate(batch, self._dense)
            preference = gate * preference + (1 - gate) * global_preference
        return incentive.log_odds(preference, self._dense)

    def _conditional_logits(self, batch: Batch, inputs: ConditionalInputs, pair_embedding: Tensor) -> Tensor:
        """Log-odds of a click given each level, float32[N, 4], for pair representations float32[N, 128]."""
        text = torch.nn.functional.linear(pair_embedding, self._dense["text.weight"], self._dense["text.bias"])
        numeric_features = torch.cat([inputs.position_features, torch.relu(text), inputs.numeric_features], dim=1)
        return self._deep.logits(batch, inputs.embedded, numeric_features, self._dense) + inputs.linear_terms

    def _position_features(self, batch: Batch) -> Tensor:
        """float32[N, 21]: the place without the level, which is what the mixture is over."""
        features = position_features(batch)
        return self.tensor(
            np.concatenate(
                [
                    features[:, : _POSITION_COLUMNS - 1],
                    features[:, _POSITION_COLUMNS + LEVELS - 1 : _POSITION_COLUMNS + LEVELS],
                ],
                axis=1,
            )
        )

    def _aggregates(self, batch: Batch) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Of category, query and user; each is one tensor, or none where the part is left out."""
        if not self._components.aggregates:
            return [], [], []
        query = [self.tensor(query_features(batch))] if self._uses_query_aggregates else []
        return [self.tensor(category_features(batch))], query, [self.tensor(user_features(batch))]

    def _per_level(self, features: Tensor) -> Tensor:
        """float32[N, 4, 3]: difference of log-odds at each level; tilt; the slope's part of it."""
        slope = features[:, -1:] * self._centered_levels
        return torch.stack([features[:, :LEVELS], features[:, -2:-1] + slope, slope], dim=2)

    def _add_losses(
        self, forward: ForwardOutput, batch: Batch, encodings: PairEncodings, output: MixtureOutput
    ) -> None:
        config, components, losses = self._config, self._components, forward.losses
        clicks = self.tensor(batch.labels)
        losses["click"] = torch.nn.functional.binary_cross_entropy_with_logits(output.log_odds, clicks)
        if components.consistency:
            losses["monotonicity"] = config.monotonicity_weight * monotonicity_loss(output.conditional_logits)
        if not config.infers_levels:
            return
        if components.consistency and components.two_stage and components.pretraining:
            log_levels = torch.log_softmax(output.level_logits.index_select(0, encodings.anchor_index), dim=1)
            losses["stage_one_kl"] = config.stage_one_kl_weight * stage_one_kl(log_levels, encodings.stage_one_logits)
            forward.loss_reductions["stage_one_kl"] = LossReduction(
                encodings.keys[encodings.anchor_index.cpu().numpy()],
                lambda: config.stage_one_kl_weight * stage_one_kl_per_pair(log_levels, encodings.stage_one_logits),
            )
        if components.two_stage and len(self._rehearsal):
            tokens, levels = self._rehearsal.sample(config.rehearsal_pairs, self._pair_encoder.step)
            head = self._dense["level.weight"], self._dense["level.bias"]
            losses["rehearsal"] = config.rehearsal_weight * rehearsal_loss(self._encoder, tokens, levels, *head)
        if components.debias and config.debias != "prior_adjustment":
            self._add_debias_loss(forward, batch, encodings, output)

    def _add_debias_loss(
        self, forward: ForwardOutput, batch: Batch, encodings: PairEncodings, output: MixtureOutput
    ) -> None:
        config = self._config
        generator = torch.Generator(self._device).manual_seed(config.seed * 1_000_003 + self._pair_encoder.step)
        pair_embedding = encodings.pair_embedding.index_select(0, encodings.inverse)
        levels = output.log_levels.detach().argmax(dim=1)
        positions = np.arange(batch.impressions) if batch.global_positions is None else batch.global_positions
        shard = (
            None
            if batch.global_positions is None
            else (torch.from_numpy(positions).to(self._device), batch.global_size)
        )
        negatives = hard_negatives(pair_embedding, levels, config.hard_negative_noise, generator, shard)
        noisy_logits = self._conditional_logits(batch, output.inputs, negatives.noisy_embeddings)
        negative = (
            noisy_logits.index_select(0, negatives.impression_index)
            .gather(1, negatives.fake_level.unsqueeze(1))
            .squeeze(1)
        )
        positive = output.log_odds.index_select(0, negatives.impression_index)
        violation = margin_violation(positive.detach(), negative.detach(), negatives.level_gap, config.hinge_margin)
        forward.counts["hard_negatives"] = torch.tensor(len(negatives.impression_index))
        forward.counts["margin_violations"] = (violation > 0).sum()
        keys = positions[negatives.impression_index.cpu().numpy()].astype(np.uint64)
        if config.debias == "hinge":
            loss = hinge_loss(positive, negative, negatives.level_gap, config.hinge_margin, config.hinge_truncation)
            forward.losses["debias"] = config.hinge_weight * loss
            within = within_truncation(violation, config.hinge_truncation)
            forward.loss_reductions["debias"] = LossReduction(
                keys[within.cpu().numpy()],
                lambda: (
                    config.hinge_weight
                    * margin_violation(positive, negative, negatives.level_gap, config.hinge_margin)[within]
                ),
            )
            return
        rate = self.tensor(batch.rates.query).index_select(0, negatives.impression_index)
        rate = rate.gather(1, negatives.fake_level.unsqueeze(1)).squeeze(1)
        forward.losses["debias"] = config.soft_target_weight * soft_target_loss(negative, rate)
        forward.loss_reductions["debias"] = LossReduction(
            keys,
            lambda: (
                config.soft_target_weight
                * torch.nn.functional.binary_cross_entropy_with_logits(negative, rate, reduction="none")
            ),
        )


_POSITION_COLUMNS: Final = 21
