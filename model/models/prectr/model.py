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
from prectr.model.features.aggregate_features import LEVEL_STEPS, OF_NUMBERS, of_exposure, of_parent, of_query, of_user
from prectr.model.features.batch import Batch, Reads
from prectr.model.features.exposed_pairs import ShownPairs
from prectr.model.features.exposure import EXPOSURE_NUMBERS, OF_LEVELS, ExposureCounts
from prectr.model.features.hashed_features import (
    Rows,
    cross_rows_of_levels,
    group_rows,
    id_rows,
    level_rows,
    pair_rows,
    place_rows,
    place_table,
    slope_rows,
    weight_table,
)
from prectr.model.features.hashing import rows as hashed_rows
from prectr.model.features.smoothing import LEVELS
from prectr.model.layers.flat_parameters import DenseParameters, Shape
from prectr.model.layers.gradients import Gradients
from prectr.model.layers.hashed_embedding import Newton
from prectr.model.layers.mlp import DeepPart, embedding_rows, place_numbers
from prectr.model.models.dnn import embedding_table
from prectr.model.models.neural import Memory, NeuralModel
from prectr.model.models.online_model import Forward, Over
from prectr.model.models.prectr.components import parts_of
from prectr.model.models.prectr.consistency import anchor_loss, divergence, order_loss
from prectr.model.models.prectr.debias import counted, hard_negatives, hinge_loss, shifted, shortfall, soft_target_loss
from prectr.model.models.prectr.fusion import fused_log_odds
from prectr.model.models.prectr.incentive import Incentive
from prectr.model.quality.explanation import Explained, as_numpy, sigmoid
from prectr.model.text.encoder.network import WIDTH, make_encoder
from prectr.model.text.pair_encoder import PairReader, Reading, open_encoder
from prectr.model.text.rehearsal import GradedPairs, replay_loss

_PAIRS: Final = "pairs"
_TEXT: Final = 16
_BY_LEVEL: Final = 3
_MORE_SHOWN: Final = 1.0
"""By how much each level more is likelier, in log-odds, for each log-odds more of being shown: where learning starts
from, since a ranker that writes a log shows what it takes for relevant (reconstruction)."""


@dataclass(frozen=True, slots=True)
class Conditional:
    """What makes the conditional log-odds of a batch, but for text and place: used again for hard negatives.

    embedded: float32[2·P + 4·N + 2·H, dim]. numbers: float32[N, any]. rest: float32[N, 4], all that is added to what
    the network says. tau: float32[N, 4], the incentive, a part of `rest`.
    """

    embedded: Tensor
    place: Tensor
    numbers: Tensor
    rest: Tensor
    tau: Tensor
    exposure: Tensor | None


@dataclass(frozen=True, slots=True)
class Scored:
    """A batch, scored. log_odds: float32[N]. conditional: float32[N, 4]. log_levels: float32[N, 4]."""

    log_odds: Tensor
    conditional: Tensor
    log_levels: Tensor
    level_logits: Tensor
    parts: Conditional


class Prectr(NeuralModel):
    """Four conditional click models over shared features, mixed by P(level) of the text."""

    reads = Reads(history=True, query_history=True, texts=True)

    def __init__(self, config: TrainerConfig, device: torch.device) -> None:
        self._config = config
        self._parts = parts = parts_of(config)
        folder = open_encoder(config)
        start = deepcopy(folder.network) if parts.pretraining else make_encoder(folder.tokenizer, config.seed)
        self._encoder = start.to(device)
        self._reader = PairReader(folder, config, device, self._encoder if parts.joint else None)
        self._graded = GradedPairs(folder.pairs, folder.tokenizer, device, config.seed)
        self._shares = self._graded.shares
        self._shown = ShownPairs(config.shown_slots, device)
        memories: dict[str, Memory] = {"shown": self._shown}
        self._exposure = ExposureCounts(config.exposure_slots, device) if parts.exposure else None
        if self._exposure is not None:
            memories["exposure"] = self._exposure
        self._by_query = parts.aggregates and parts.cold_start
        sources = parts.aggregates + self._by_query
        columns = LEVELS * parts.aggregates + OF_NUMBERS * sources + EXPOSURE_NUMBERS * parts.exposure + 1
        self._deep = DeepPart(config.embedding_dim, config.hidden, _PLACE + _TEXT + columns, outputs=LEVELS)
        self._incentive = Incentive(config.embedding_dim, OF_NUMBERS * parts.aggregates, parts.cold_start)
        shapes = {
            **self._deep.shapes(),
            "text.weight": Shape((_TEXT, WIDTH), WIDTH**-0.5),
            "text.bias": Shape.zeros(_TEXT),
            "level.weight": Shape.zeros(LEVELS, WIDTH),
            "level.bias": Shape.zeros(LEVELS),
            "straight": Shape.zeros(parts.aggregates + _BY_LEVEL * sources),
            **(self._incentive.shapes() if parts.incentive else {}),
        }
        if parts.exposure:
            shapes["exposure.straight"] = Shape.zeros(1, EXPOSURE_NUMBERS)
            shapes["exposure.level"] = Shape.zeros(LEVELS, OF_LEVELS)
        dense = DenseParameters(
            shapes,
            rate=config.dense_rate,
            seed=config.seed,
            device=device,
            adopted=("encoder", self._encoder, config.encoder_rate) if parts.joint else None,
        )
        if parts.two_stage and parts.pretraining:
            with torch.no_grad():
                dense["level.weight"].copy_(folder.network.levels.weight)
                dense["level.bias"].copy_(folder.network.levels.bias)
        self._steps = torch.from_numpy(LEVEL_STEPS.astype(np.float32)).to(device)
        if parts.exposure:
            with torch.no_grad():
                dense["exposure.level"][:, 0] = _MORE_SHOWN * self._steps
        super().__init__(
            {
                "embedding": embedding_table(config, device),
                "place": place_table(config, device),
                "wide": weight_table(config, Newton(config.wide_prior), device),
                "slope": weight_table(config, Newton(config.slope_prior), device),
                **({"pair": weight_table(config, Newton(config.pair_prior), device)} if parts.cold_start else {}),
            },
            dense,
            device,
            memories,
        )

    def rows(self, batch: Batch) -> dict[str, Rows]:
        """Rows, each table's in one line: what `_conditional` takes apart."""
        size, wide = self._config.embedding_rows, self._config.wide_rows
        embedding = [embedding_rows(batch, size)]
        if self._parts.cold_start:
            clicks = batch.query_history
            embedding += [hashed_rows(clicks.item, "item", size), hashed_rows(clicks.group, "group", size)]
        ids = np.concatenate([id_rows(batch, wide), group_rows(batch, wide)], axis=1)
        return {
            "embedding": np.concatenate(embedding),
            "place": np.concatenate([place_rows(batch)[:, :2].ravel(), level_rows()]),
            "wide": np.concatenate([ids.ravel(), cross_rows_of_levels(batch, wide).ravel()]),
            "slope": slope_rows(batch, wide),
            **({"pair": pair_rows(batch, wide)} if self._parts.cold_start else {}),
        }

    def forward(self, batch: Batch) -> Forward:
        """One pass over what was shown."""
        reading = self._reader.read(batch, learn=True)
        gathered = {name: self._tables[name].gather(rows) for name, rows in self.rows(batch).items()}
        looked_up = {name: each.look_up() for name, each in gathered.items()}
        scored = self._scored(batch, reading, looked_up)
        kept = {**self.remembered(batch), _PAIRS: reading.kept}
        forward = Forward(scored.log_odds.detach(), {}, gathered, kept)
        self._add_losses(forward, batch, reading, scored)
        return forward

    def no_gradients(self) -> Gradients:
        """Of no pages."""
        none = super().no_gradients()
        return replace(none, tables={**none.tables, _PAIRS: self._reader.nothing()})

    def step(self, gradients: Gradients) -> None:
        """Learn, and remember."""
        self._reader.keep(gradients.tables[_PAIRS])
        super().step(gradients)

    def score(self, batch: Batch) -> Tensor:
        """Logits float32[N], nothing learned."""
        return self.explain(batch).log_odds

    def explain(self, batch: Batch) -> Scored:
        """A batch scored as `score` does, with what the score is made of; nothing learned."""
        with torch.no_grad():
            looked_up = {name: self._tables[name].read(rows) for name, rows in self.rows(batch).items()}
            reading = self._reader.read(batch, learn=False)
            return self._scored(batch, reading, looked_up)

    def explained(self, batch: Batch) -> Explained:
        """As `explanation.explain` asks: the levels as inferred, the conditional probabilities, the incentive."""
        scored = self.explain(batch)
        return Explained(
            log_odds=as_numpy(scored.log_odds),
            levels=np.exp(as_numpy(scored.log_levels)),
            given=sigmoid(as_numpy(scored.conditional)),
            tau=as_numpy(scored.parts.tau) if self._parts.incentive else None,
            rates=batch.rates,
        )

    def export(self) -> dict[str, Tensor]:
        """Tables, dense parameters, memories, and the cache of pairs."""
        exported = super().export()
        exported.update({f"pairs.{name}": tensor for name, tensor in self._reader.export().items()})
        return exported

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take up what `export` gave. ValueError: it was made with another encoder."""
        pairs = {name.removeprefix("pairs."): each for name, each in tensors.items() if name.startswith("pairs.")}
        self._reader.restore(pairs)
        super().restore(tensors)

    def _scored(self, batch: Batch, reading: Reading, looked_up: Mapping[str, Tensor]) -> Scored:
        parts = self._conditional(batch, reading, looked_up)
        conditional = self._given(batch, parts, reading.pair.index_select(0, reading.index))
        level_logits = torch.nn.functional.linear(reading.pair, self._dense["level.weight"], self._dense["level.bias"])
        of_each = level_logits.index_select(0, reading.index)
        if parts.exposure is not None:
            told = parts.exposure[:, :OF_LEVELS]
            of_each = of_each + torch.nn.functional.linear(told, self._dense["exposure.level"])
        log_levels = self._log_levels(batch, of_each)
        return Scored(fused_log_odds(conditional, log_levels), conditional, log_levels, level_logits, parts)

    def _log_levels(self, batch: Batch, level_logits: Tensor) -> Tensor:
        """ln P(level), float32[N, 4]; `shift` is for what is shown, or has been for the query before."""
        if not self._config.infers_levels:
            return self.tensor(batch.level_weights).clamp(min=1e-6).log()
        if self._parts.debias and self._config.debias.startswith("shift"):
            ones = torch.ones(batch.impressions, dtype=torch.bool, device=self._device)
            shown = ones if batch.shown else self._shown.has(batch)
            exposed = of_exposure(batch, self._config.smoothing) if self._by_query else batch.rates.exposed
            return shifted(level_logits, self.tensor(exposed), self._shares, shown)
        return torch.log_softmax(level_logits, dim=1)

    def _conditional(self, batch: Batch, reading: Reading, looked_up: Mapping[str, Tensor]) -> Conditional:
        pages, impressions = batch.pages, batch.impressions
        page_of = torch.from_numpy(batch.page_of).to(self._device)
        clicks = len(batch.history.item)
        main = 2 * pages + 4 * impressions + 2 * clicks
        embedded, of_all = looked_up["embedding"][:main], looked_up["embedding"][main:]
        place = looked_up["place"][:, 0]
        wide = looked_up["wide"][:, 0]
        ids, crosses = wide[: 6 * impressions].view(impressions, 6), wide[6 * impressions :].view(pages, 2, LEVELS)
        slope = looked_up["slope"].sum(dim=(1, 2)).unsqueeze(1) * self._steps
        rest = (
            place[: 2 * impressions].view(impressions, 2).sum(dim=1, keepdim=True)
            + place[2 * impressions :]
            + ids.sum(dim=1, keepdim=True)
            + crosses.sum(dim=1).index_select(0, page_of)
            + slope
        )
        if self._parts.cold_start:
            rest = rest + looked_up["pair"]
        parent, query, user = self._aggregates(batch)
        numbers = [reading.similarity.detach().index_select(0, reading.index).unsqueeze(1), *parent, *query, *user]
        exposure = None if self._exposure is None else self.tensor(self._exposure.numbers(batch))
        if exposure is not None:
            numbers.append(exposure)
            rest = rest + torch.nn.functional.linear(exposure, self._dense["exposure.straight"])
        straight = [each.unsqueeze(2) for each in parent]
        straight += [self._by_level(each) for each in (*query, *user)]
        if straight:
            rest = rest + torch.cat(straight, dim=2) @ self._dense["straight"]
        tau = torch.zeros_like(rest)
        if self._parts.incentive:
            tau = self._tau(batch, embedded, of_all, query, user)
        return Conditional(embedded, self._place(batch), torch.cat(numbers, dim=1), rest + tau, tau, exposure)

    def _tau(self, batch: Batch, embedded: Tensor, of_all: Tensor, query: list[Tensor], user: list[Tensor]) -> Tensor:
        pages, clicks = batch.pages, len(batch.history.item)
        asked = embedded[pages : 2 * pages]
        items, groups = embedded[len(embedded) - 2 * clicks :].chunk(2) if clicks else (embedded[:0], embedded[:0])
        nothing = asked.new_zeros(batch.impressions, 0)
        part = self._incentive
        preference = part.of_user(batch, asked, items + groups, user[0] if user else nothing, self._dense)
        if self._parts.cold_start:
            items, groups = of_all.chunk(2) if len(of_all) else (of_all, of_all)
            of_query = part.of_all(batch, asked, items + groups, query[0] if query else nothing, self._dense)
            own = part.user_share(batch, self._dense)
            preference = own * preference + (1 - own) * of_query
        return part.tau(preference, self._dense)

    def _given(self, batch: Batch, parts: Conditional, pair: Tensor) -> Tensor:
        """Log-odds of a click given each level, float32[N, 4], for pair representations float32[N, 128]."""
        text = torch.nn.functional.linear(pair, self._dense["text.weight"], self._dense["text.bias"])
        numbers = torch.cat([parts.place, torch.relu(text), parts.numbers], dim=1)
        return self._deep.logits(batch, parts.embedded, numbers, self._dense) + parts.rest

    def _place(self, batch: Batch) -> Tensor:
        """float32[N, 21]: the place without the level, which is what the mixture is over."""
        numbers = place_numbers(batch)
        return self.tensor(
            np.concatenate([numbers[:, : _PLACE - 1], numbers[:, _PLACE + LEVELS - 1 : _PLACE + LEVELS]], axis=1)
        )

    def _aggregates(self, batch: Batch) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Of category, query and user; each is one tensor, or none where the part is left out."""
        if not self._parts.aggregates:
            return [], [], []
        query = [self.tensor(of_query(batch))] if self._by_query else []
        return [self.tensor(of_parent(batch))], query, [self.tensor(of_user(batch))]

    def _by_level(self, of: Tensor) -> Tensor:
        """float32[N, 4, 3]: difference of log-odds at each level; tilt; the slope's part of it."""
        slope = of[:, -1:] * self._steps
        return torch.stack([of[:, :LEVELS], of[:, -2:-1] + slope, slope], dim=2)

    def _add_losses(self, forward: Forward, batch: Batch, reading: Reading, scored: Scored) -> None:
        config, parts, losses = self._config, self._parts, forward.losses
        clicks = self.tensor(batch.labels)
        losses["click"] = torch.nn.functional.binary_cross_entropy_with_logits(scored.log_odds, clicks)
        if parts.consistency:
            losses["order"] = config.order_weight * order_loss(scored.conditional)
        if not config.infers_levels:
            return
        if parts.consistency and parts.two_stage and parts.pretraining:
            now = torch.log_softmax(scored.level_logits.index_select(0, reading.anchored), dim=1)
            losses["anchor"] = config.anchor_weight * anchor_loss(now, reading.stage_one)
            forward.over["anchor"] = Over(
                reading.keys[reading.anchored.cpu().numpy()],
                lambda: config.anchor_weight * divergence(now, reading.stage_one),
            )
        if parts.two_stage and len(self._graded):
            tokens, levels = self._graded.draw(config.replay_pairs, self._reader.step)
            head = self._dense["level.weight"], self._dense["level.bias"]
            losses["replay"] = config.replay_weight * replay_loss(self._encoder, tokens, levels, *head)
        if parts.debias and config.debias != "shift":
            self._add_debias_loss(forward, batch, reading, scored)

    def _add_debias_loss(self, forward: Forward, batch: Batch, reading: Reading, scored: Scored) -> None:
        config = self._config
        random = torch.Generator(self._device).manual_seed(config.seed * 1_000_003 + self._reader.step)
        pair = reading.pair.index_select(0, reading.index)
        own = scored.log_levels.detach().argmax(dim=1)
        places = np.arange(batch.impressions) if batch.places is None else batch.places
        among = None if batch.places is None else (torch.from_numpy(places).to(self._device), batch.whole)
        negatives = hard_negatives(pair, own, config.noise, random, among)
        given = self._given(batch, scored.parts, negatives.noisy)
        fake = given.index_select(0, negatives.of).gather(1, negatives.level.unsqueeze(1)).squeeze(1)
        positive = scored.log_odds.index_select(0, negatives.of)
        short = shortfall(positive.detach(), fake.detach(), negatives.drop, config.hinge_margin)
        forward.counts["hard_negatives"] = torch.tensor(len(negatives.of))
        forward.counts["margin_hits"] = (short > 0).sum()
        keys = places[negatives.of.cpu().numpy()].astype(np.uint64)
        if config.debias == "hinge":
            loss = hinge_loss(positive, fake, negatives.drop, config.hinge_margin, config.hinge_truncation)
            forward.losses["debias"] = config.hinge_weight * loss
            counts = counted(short, config.hinge_truncation)
            forward.over["debias"] = Over(
                keys[counts.cpu().numpy()],
                lambda: config.hinge_weight * shortfall(positive, fake, negatives.drop, config.hinge_margin)[counts],
            )
            return
        rate = self.tensor(batch.rates.query).index_select(0, negatives.of)
        rate = rate.gather(1, negatives.level.unsqueeze(1)).squeeze(1)
        forward.losses["debias"] = config.soft_weight * soft_target_loss(fake, rate)
        forward.over["debias"] = Over(
            keys,
            lambda: (
                config.soft_weight * torch.nn.functional.binary_cross_entropy_with_logits(fake, rate, reduction="none")
            ),
        )


_PLACE: Final = 21
