"""The relevance models written out impression by impression, with every part as a sum: an oracle for tests."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prectr.model.features.batch import Batch, History, QueryHistory
from prectr.model.features.hashing import cross, row_indices
from prectr.model.text.encoder.artifact import load_encoder
from prectr.model.text.encoder.network import RelevanceEncoder
from tests.kit.models.encoder import tiny_encoder
from tests.kit.models.exposure import expected_exposure
from tests.kit.models.model_cases import PRIOR, ModelHarness, level_shares
from tests.kit.models.shifts import shifts_of

PREFERENCE_SIZE = 16
LEVEL_STEPS = np.array([-1.5, -0.5, 0.5, 1.5])
ITEM_FIELDS = ("item", "category", "brand", "group")


@dataclass(frozen=True)
class Impression:
    """What the parts of the model read of one impression.

    page: its page. pair: float32[128] and similarity: e_q·e_i, from the encoder. parent: float64[4], log-odds of the
    category's rate from the prior's. user, query: float64[10], aggregate features. exposure: float32[5].
    """

    n: int
    page: int
    pair: Tensor
    similarity: Tensor
    parent: np.ndarray
    user: np.ndarray
    query: np.ndarray
    exposure: Tensor


class WrittenOut:
    """The whole prectr-v2, or prectr, with inferred levels.

    weights: as `weights()` of the model names them. network: the encoder that reads the pairs.
    """

    def __init__(
        self, learner: ModelHarness, batch: Batch, weights: dict[str, Tensor], network: RelevanceEncoder
    ) -> None:
        self.config = learner.config
        self.batch = batch
        self.weights = weights
        self.network = network
        self.second = learner.config.model == "prectr-v2"
        self.tokenizer = load_encoder(tiny_encoder()).tokenizer
        self.exposure = torch.tensor(expected_exposure(learner.training_batches(), batch), dtype=torch.float32)

    def log_odds(self) -> Tensor:
        """Of a click, float32[N]."""
        logits = []
        for impression in self._impressions():
            levels = torch.softmax(self._level_logits(impression), dim=0)
            click = (levels * torch.sigmoid(self._conditional(impression))).sum()
            logits.append(torch.log(click) - torch.log1p(-click))
        return torch.stack(logits)

    def _impressions(self) -> Iterator[Impression]:
        rates = self.batch.rates
        for n, page in enumerate(self.batch.page_of.tolist()):
            encoded = self.network(self.tokenizer.encode([self.batch.texts[n]]))
            yield Impression(
                n,
                page,
                encoded.pair_embedding[0],
                (encoded.query_vector[0] * encoded.item_vector[0]).sum().detach(),
                _log_odds(rates.category[n]) - PRIOR,
                _aggregates(rates.user[n], rates.user_impressions[n], rates.user_clicks[n], rates.category[n]),
                _aggregates(rates.query[n], rates.query_impressions[n], rates.query_clicks[n], rates.category[n]),
                self.exposure[n],
            )

    def _dense(self, name: str) -> Tensor:
        return self.weights[f"dense.{name}"]

    def _embed(self, hashed: np.ndarray, field: str) -> Tensor:
        rows = row_indices(hashed, field, self.config.embedding_rows)
        return self.weights["table.embedding"][int(rows[0])]

    def _weight(self, hashed: object, field: str, table: str = "wide") -> Tensor:
        row = row_indices(np.array([hashed], dtype=np.uint64), field, self.config.wide_rows)[0]
        return self.weights[f"table.{table}"][int(row), 0]

    def _clicked(self, history: History | QueryHistory, page: int) -> tuple[list[int], list[Tensor]]:
        """The clicks of a page, and the embeddings of what was clicked."""
        own = [c for c, of in enumerate(history.page_of.tolist()) if of == page]
        return own, [self._embed(history.item[[c]], "item") + self._embed(history.group[[c]], "group") for c in own]

    def _conditional(self, of: Impression) -> Tensor:
        """Log-odds of a click given each level, float32[4]."""
        linear, slope = self._linear(of), self._slope(of)
        by_level = [
            self._of_level(of, level) + slope * step + linear for level, step in enumerate(LEVEL_STEPS.tolist())
        ]
        return self._deep(of) + torch.stack(by_level) + self._incentive(of)

    def _deep(self, of: Impression) -> Tensor:
        batch, n = self.batch, of.n
        _, past = self._clicked(batch.history, of.page)
        mean = sum(past, torch.zeros(self.config.embedding_dim)) / max(len(past), 1)
        position = int(batch.positions[n])
        one_hot = [0.0] * 20
        one_hot[min(position, 20) - 1] = 1.0
        sources = [of.query, of.user] if self.second else [of.user]
        layer = torch.cat(
            [
                self._embed(batch.user[[of.page]], "user"),
                self._embed(batch.query[[of.page]], "query"),
                mean,
                *(self._embed(getattr(batch, name)[[n]], name) for name in ITEM_FIELDS),
                torch.tensor([*one_hot, math.log(position)]),
                torch.relu(self._dense("conditional.text.weight") @ of.pair + self._dense("conditional.text.bias")),
                of.similarity[None],
                torch.tensor(np.concatenate([of.parent, *sources]), dtype=torch.float32),
                *([of.exposure] if self.second else []),
            ]
        )
        for number in range(len(self.config.hidden)):
            name = f"conditional.deep.hidden.{number}"
            layer = torch.relu(self._dense(f"{name}.weight") @ layer + self._dense(f"{name}.bias"))
        return self._dense("conditional.deep.out.weight") @ layer + self._dense("conditional.deep.out.bias")

    def _linear(self, of: Impression) -> Tensor:
        """What is added to every level alike."""
        batch, n = self.batch, of.n
        user, query, position = batch.user[of.page], batch.query[of.page], self.weights["table.position"]
        linear = position[0, 0] + position[min(int(batch.positions[n]), 200), 0]
        linear = linear + self._weight(user, "user") + self._weight(query, "query")
        linear = linear + sum(self._weight(getattr(batch, name)[n], name) for name in ITEM_FIELDS)
        if self.second:
            pair = cross(np.array([query], dtype=np.uint64), np.array([batch.item[n]], dtype=np.uint64))
            linear = linear + self._weight(pair[0], "query × item", "pair")
            linear = linear + (self._dense("exposure.click.weight")[0] * of.exposure).sum()
        return linear

    def _slope(self, of: Impression) -> Tensor:
        query = self._weight(self.batch.query[of.page], "query slope", "slope")
        return query + self._weight(self.batch.user[of.page], "user slope", "slope")

    def _of_level(self, of: Impression, level: int) -> Tensor:
        """What is added to one level alone: its weight, its crosses, the click rates."""
        total = self.weights["table.position"][201 + level + 1, 0]
        hashes = ((self.batch.query[of.page], "query × level"), (self.batch.user[of.page], "user × level"))
        for hashed, field in hashes:
            crossed = cross(np.array([hashed], dtype=np.uint64), np.array([level + 1], dtype=np.uint64))
            total = total + self._weight(crossed[0], field)
        step, rates = LEVEL_STEPS[level], [of.parent[level]]
        for source in [of.query, of.user] if self.second else [of.user]:
            rates += [source[level], source[8] + source[9] * step, source[9] * step]
        if self.second:
            for number, (intercept, slope) in shifts_of(self.batch, of.n):
                total = total + self.weights["table.recency"][number, 0] * (intercept + slope * step)
        return total + torch.tensor(np.array(rates), dtype=torch.float32) @ self._dense("aggregates.weight")

    def _level_logits(self, of: Impression) -> Tensor:
        logits = self._dense("relevance_head.weight") @ of.pair + self._dense("relevance_head.bias")
        if not self.second:
            return logits
        rates = self.batch.rates
        exposed = rates.query_impressions[of.n] + 20.0 * rates.exposed_level_shares
        adjustment = np.log(exposed / exposed.sum()) - np.log(level_shares())
        logits = logits + torch.tensor(adjustment, dtype=torch.float32)
        return logits + self._dense("exposure.level.weight") @ of.exposure[:4]

    def _incentive(self, of: Impression) -> Tensor:
        """τ, float32[4]."""
        history = self.batch.history
        own, past = self._clicked(history, of.page)
        overlaps = [float(history.query_overlap[c]) for c in own]
        preference = self._attended("incentive.user", of, history, (own, past, overlaps), of.user)
        if self.second:
            all_clicks = self.batch.query_history
            own, past = self._clicked(all_clicks, of.page)
            clicks = (own, past, [0.0] * len(own))
            r_global = self._attended("incentive.cold_start.attention", of, all_clicks, clicks, of.query)
            gate = self._gate(of)
            preference = gate * preference + (1 - gate) * r_global
        mixture = torch.softmax(self._dense("incentive.mixture.weight") @ preference, dim=0)
        experts = []
        for name in ("positive", "negative"):
            weight, bias = self._dense(f"incentive.{name}.weight"), self._dense(f"incentive.{name}.bias")
            experts.append(torch.log1p(torch.exp(weight @ preference + bias)))
        return mixture[0] * experts[0] - mixture[1] * experts[1]

    def _gate(self, of: Impression) -> Tensor:
        rates, gate = self.batch.rates, "incentive.cold_start.gate"
        user, query = rates.user_impressions[of.n].sum(), rates.query_impressions[of.n].sum()
        counts = [self.batch.user_activity[of.page], user, query]
        known = torch.tensor([0.3 * math.log(1 + count) for count in counts])
        return torch.sigmoid(self._dense(f"{gate}.weight")[0] @ known + self._dense(f"{gate}.bias")[0])

    def _attended(
        self,
        name: str,
        of: Impression,
        history: History | QueryHistory,
        clicks: tuple[list[int], list[Tensor], list[float]],
        features: np.ndarray,
    ) -> Tensor:
        """r: attention of the page over its clicks (index, embedding, overlap), joined with aggregate features."""
        layers = ("query", "key", "value", "age", "overlap", "out")
        weight = {layer: self._dense(f"{name}.{layer}.weight") for layer in layers}
        heads = len(weight["age"])
        width = PREFERENCE_SIZE // heads
        query = weight["query"] @ self._embed(self.batch.query[[of.page]], "query")
        attended = []
        for head in range(heads):
            span = slice(head * width, (head + 1) * width)
            total, summed = torch.zeros(()), torch.zeros(width)
            for c, embedded, overlap in zip(*clicks, strict=True):
                score = query[span] @ (weight["key"] @ embedded)[span] / math.sqrt(width)
                score = score + weight["age"][head, 0] * math.log(1 + float(history.age_days[c]))
                score = score + weight["overlap"][head, 0] * overlap
                attention = torch.exp(8 * torch.tanh(score / 8))
                level = torch.eye(4)[int(history.level[c]) - 1]
                total = total + attention
                summed = summed + attention * (weight["value"] @ torch.cat([embedded, level]))[span]
            attended.append(summed / total if clicks[0] else summed)
        return weight["out"] @ torch.cat([*attended, torch.tensor(features, dtype=torch.float32)])


def _log_odds(rates: np.ndarray) -> np.ndarray:
    return np.log(rates / (1 - rates))


def _aggregates(smoothed: np.ndarray, impressions: np.ndarray, clicks: np.ndarray, parent: np.ndarray) -> np.ndarray:
    """Ten features of a query or a user: differences by level, logarithms of counts, intercept and slope."""
    design = np.stack([np.ones(4), LEVEL_STEPS], axis=1)
    information = design.T @ np.diag(impressions * parent * (1 - parent)) @ design + np.eye(2) / 0.7**2
    intercept_and_slope = np.linalg.solve(information, design.T @ (clicks - impressions * parent))
    return np.concatenate([_log_odds(smoothed) - _log_odds(parent), 0.3 * np.log(1 + impressions), intercept_and_slope])
