"""The cached pair encoder against the encoder itself, with a tokenizer that records the pairs it gets."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import Tensor

from prectr.model.distributed.data_parallel import all_reduce_gradients
from prectr.model.features.batch import Batch, FeatureEncoder, FeatureNeeds
from prectr.model.features.smoothing import PriorRates
from prectr.model.layers.gradients import Gradients
from prectr.model.text.encoder.artifact import load_encoder
from prectr.model.text.encoder.network import RelevanceEncoder
from prectr.model.text.encoder.tokens import Pair, PairTokenizer, PairTokens
from prectr.model.text.pair_encoder import CachedPairEncoder, PairEncodings, with_text_features
from prectr.state.errors import CheckpointError, Remedy
from tests.kit.models.encoder import tiny_encoder
from tests.kit.models.examples import random_examples, small_config
from tests.kit.models.threads import run_on_ranks

CPU = torch.device("cpu")
HALF = 2e-3
"""Numbers of float16 are right to a part in 2,048; those of a pair are of size 1."""


class RecordingTokenizer:
    """A tokenizer that records the pairs it gets, and whether gradients were enabled."""

    def __init__(self, tokenizer: PairTokenizer) -> None:
        self._tokenizer = tokenizer
        self.plain: list[Pair] = []
        self.learned: list[Pair] = []

    def encode(self, pairs: Sequence[Pair]) -> PairTokens:
        (self.learned if torch.is_grad_enabled() else self.plain).extend(pairs)
        return self._tokenizer.encode(pairs)

    def forget(self) -> None:
        self.plain, self.learned = [], []


class RecordedEncoder:
    """A cached pair encoder, the encoder that it trains in joint training, and the recorded pairs."""

    def __init__(self, *, joint: bool, seed: int = 0, **settings: object) -> None:
        folder = load_encoder(tiny_encoder(seed))
        self.tokenized = RecordingTokenizer(folder.tokenizer)
        self.trained = load_encoder(tiny_encoder(1)).network if joint else None
        config = small_config(model="prectr-v2", **settings)
        recording = dataclasses.replace(folder, tokenizer=self.tokenized)  # type: ignore[arg-type]
        self.reader = CachedPairEncoder(recording, config, CPU, self.trained)

    def learn(self, batch: Batch) -> PairEncodings:
        """Encode as in training, and update the cache."""
        self.tokenized.forget()
        encodings = self.reader.encode(batch, learn=True)
        self.reader.apply(encodings.cache_update)
        return encodings

    def score(self, batch: Batch) -> PairEncodings:
        self.tokenized.forget()
        with torch.no_grad():
            return self.reader.encode(batch, learn=False)

    def wait(self, steps: int) -> None:
        """Apply that many batches without pairs."""
        for _ in range(steps):
            self.reader.apply(self.reader.empty_update())


def _batch(seed: int = 0, pages: int = 8) -> Batch:
    return FeatureEncoder().encode(random_examples(pages, seed=seed), PriorRates(64, 20.0), FeatureNeeds(texts=True))


def _fresh(network: RelevanceEncoder, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """What the encoder says of each impression when it is recorded for that pair alone."""
    tokenizer = load_encoder(tiny_encoder()).tokenizer
    with torch.no_grad():
        stage_one = [network(tokenizer.encode([pair])) for pair in batch.texts]
    pair = torch.cat([each.pair_embedding for each in stage_one])
    return (
        pair,
        torch.cat([each.level_logits for each in stage_one]),
        torch.cat([(e.query_vector * e.item_vector).sum(1) for e in stage_one]),
    )


def _of_impressions(encodings: PairEncodings) -> Tensor:
    return encodings.pair_embedding.detach()[encodings.inverse]


@pytest.mark.parametrize("joint", [False, True])
def test_each_impression_gets_the_encodings_of_its_text(joint: bool) -> None:
    recorded, batch = RecordedEncoder(joint=joint, encoder_share=0.3), _batch()
    encodings = recorded.learn(batch)
    now = recorded.trained or load_encoder(tiny_encoder()).network
    pair, _, similarity = _fresh(now, batch)
    assert torch.allclose(_of_impressions(encodings), pair, atol=1e-5)
    assert torch.allclose(encodings.similarity.detach()[encodings.inverse], similarity, atol=1e-5)


def test_stage_one_covers_every_pair_where_the_encoder_is_frozen() -> None:
    recorded, batch = RecordedEncoder(joint=False), _batch()
    for encodings in (recorded.learn(batch), recorded.learn(batch), recorded.score(batch)):
        levels = _fresh(load_encoder(tiny_encoder()).network, batch)[1]
        assert encodings.anchor_index.tolist() == list(range(len(encodings.pair_embedding)))
        assert torch.allclose(encodings.stage_one_logits[encodings.inverse], levels, atol=HALF)
        assert not encodings.pair_embedding.requires_grad


def test_stage_one_covers_the_pairs_that_the_encoder_trains_on() -> None:
    recorded, batch = RecordedEncoder(joint=True, encoder_share=0.4), _batch()
    levels = _fresh(load_encoder(tiny_encoder()).network, batch)[1]
    for _ in range(3):
        encodings = recorded.learn(batch)
        assert {_pair_at(batch, encodings, place) for place in encodings.anchor_index.tolist()} == set(
            recorded.tokenized.learned
        )
        assert 0 < len(encodings.anchor_index) < len(encodings.pair_embedding)
        for place, stage_one in zip(encodings.anchor_index.tolist(), encodings.stage_one_logits, strict=True):
            impression = encodings.inverse.tolist().index(place)
            assert torch.allclose(stage_one, levels[impression], atol=1e-5)
        assert not encodings.stage_one_logits.requires_grad
        with torch.no_grad():
            for parameter in recorded.trained.parameters():  # type: ignore[union-attr]
                parameter.mul_(1.05)


def _pair_at(batch: Batch, encodings: PairEncodings, place: int) -> Pair:
    return batch.texts[encodings.inverse.tolist().index(place)]


@pytest.mark.parametrize("joint", [False, True])
def test_each_distinct_pair_is_encoded_once_a_batch_and_then_no_more(joint: bool) -> None:
    recorded, batch = RecordedEncoder(joint=joint, encoder_share=0.0), _batch()
    distinct = set(batch.texts)
    assert len(distinct) < batch.impressions
    encodings = recorded.learn(batch)
    assert len(encodings.pair_embedding) == len(distinct)
    assert sorted(recorded.tokenized.plain) == sorted(distinct)
    for read in (recorded.learn, recorded.score):
        read(batch)
        assert recorded.tokenized.plain == recorded.tokenized.learned == []
    both = _batch(seed=0, pages=12)
    recorded.learn(both)
    assert sorted(recorded.tokenized.plain) == sorted(set(both.texts) - distinct)


@pytest.mark.parametrize("joint", [False, True])
def test_what_is_cached_is_what_was_said_but_for_float16(joint: bool) -> None:
    recorded, batch = RecordedEncoder(joint=joint, encoder_share=0.2), _batch()
    first = recorded.learn(batch)
    second = recorded.learn(batch)
    assert torch.equal(first.inverse, second.inverse)
    assert torch.allclose(second.pair_embedding, first.pair_embedding, rtol=1e-3, atol=HALF)
    assert torch.allclose(second.similarity, first.similarity, rtol=1e-3, atol=HALF)
    assert not torch.equal(second.pair_embedding, first.pair_embedding)


def test_scoring_remembers_nothing() -> None:
    recorded, batch = RecordedEncoder(joint=True, encoder_share=0.5), _batch()
    encodings = recorded.score(batch)
    assert len(encodings.cache_update.indices) == 0
    recorded.score(batch)
    assert set(recorded.tokenized.plain) == set(batch.texts)
    assert recorded.reader.step == 0


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_encoder_learns_from_the_configured_share(share: float) -> None:
    """Over 60 batches of the same U pairs; three standard deviations of the binomial."""
    recorded, batch = RecordedEncoder(joint=True, encoder_share=share, pair_refresh=10_000), _batch()
    distinct = len(set(batch.texts))
    learned: list[set[Pair]] = []
    for _ in range(60):
        encodings = recorded.learn(batch)
        assert len(set(recorded.tokenized.learned)) == len(recorded.tokenized.learned) == len(encodings.anchor_index)
        learned.append(set(recorded.tokenized.learned))
    drawn = 60 * distinct
    assert sum(map(len, learned)) == pytest.approx(drawn * share, abs=3 * np.sqrt(drawn * share * (1 - share)))
    assert len({frozenset(each) for each in learned}) > 50
    assert set.union(*learned) == set(batch.texts)


def test_only_the_pairs_that_are_learned_from_carry_a_gradient() -> None:
    recorded, batch = RecordedEncoder(joint=True, encoder_share=0.4), _batch()
    recorded.learn(batch)
    encodings = recorded.learn(batch)
    network = recorded.trained
    assert network is not None
    learned = set(encodings.anchor_index.tolist())
    assert 0 < len(learned) < len(encodings.pair_embedding)
    for place in range(len(encodings.pair_embedding)):
        network.zero_grad()
        (encodings.pair_embedding[place] * torch.arange(128)).sum().backward(retain_graph=True)
        flows = sum(float(p.grad.abs().sum()) for p in network.parameters() if p.grad is not None) > 0
        assert flows == (place in learned)


def test_with_a_share_of_one_every_pair_goes_through_every_time_and_of_nought_none() -> None:
    batch = _batch()
    all_of_them, none = RecordedEncoder(joint=True, encoder_share=1.0), RecordedEncoder(joint=True, encoder_share=0.0)
    for _ in range(3):
        encodings = all_of_them.learn(batch)
        assert sorted(all_of_them.tokenized.learned) == sorted(set(batch.texts))
        assert encodings.pair_embedding.requires_grad
        encodings = none.learn(batch)
        assert none.tokenized.learned == []
        assert not encodings.pair_embedding.requires_grad
        assert len(encodings.anchor_index) == 0


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_learn_from_the_pairs_that_one_process_learns_from(size: int) -> None:
    examples = random_examples(9, seed=4)
    whole = FeatureEncoder().encode(examples, PriorRates(64, 20.0), FeatureNeeds(texts=True))
    shares = [
        FeatureEncoder().encode(examples[rank::size], PriorRates(64, 20.0), FeatureNeeds(texts=True))
        for rank in range(size)
    ]
    alone = RecordedEncoder(joint=True, encoder_share=0.3)
    ranks = [RecordedEncoder(joint=True, encoder_share=0.3) for _ in range(size)]
    for _ in range(4):
        alone.learn(whole)
        for rank, share in zip(ranks, shares, strict=True):
            rank.learn(share)
        assert set(alone.tokenized.learned) == set().union(*(rank.tokenized.learned for rank in ranks))
        assert alone.tokenized.learned


def test_ranks_come_to_hold_one_cache_of_all_that_any_has_read() -> None:
    examples = random_examples(9, seed=4)

    def work(ranks: object) -> RecordedEncoder:
        recorded = RecordedEncoder(joint=True, encoder_share=0.0)
        own = examples[ranks.rank :: 3]  # type: ignore[attr-defined]
        batch = FeatureEncoder().encode(own, PriorRates(64, 20.0), FeatureNeeds(texts=True))
        kept = recorded.reader.encode(batch, learn=True).cache_update
        own = Gradients(1, torch.zeros(0), {}, {"pair_cache": kept})
        summed = all_reduce_gradients(own, 3, ranks)  # type: ignore[arg-type]
        recorded.reader.apply(summed.state_updates["pair_cache"])
        return recorded

    whole = FeatureEncoder().encode(examples, PriorRates(64, 20.0), FeatureNeeds(texts=True))
    together = run_on_ranks(3, work)
    exports = [recorded.reader.state_dict() for recorded in together]
    assert all(torch.equal(export[name], exports[0][name]) for export in exports for name in export)
    encodings = together[1].score(whole)
    # Two of many pairs may want one slot.
    assert len(together[1].tokenized.plain) <= 0.1 * len(set(whole.texts))
    network = together[1].trained
    assert network is not None
    assert torch.allclose(_of_impressions(encodings), _fresh(network, whole)[0], rtol=1e-3, atol=HALF)


def test_a_pair_is_encoded_again_after_the_configured_steps_and_not_before() -> None:
    """Within a step of the configured 5, the first of which is the one that it was read in."""
    recorded, batch = RecordedEncoder(joint=True, encoder_share=0.0, pair_refresh=5), _batch()
    first = recorded.learn(batch)
    with torch.no_grad():
        for parameter in recorded.trained.parameters():  # type: ignore[union-attr]
            parameter.mul_(1.2)
    recorded.wait(4)
    stale = recorded.score(batch)
    assert recorded.tokenized.plain == []
    assert torch.allclose(stale.pair_embedding, first.pair_embedding, rtol=1e-3, atol=HALF)
    recorded.wait(2)
    renewed = recorded.learn(batch)
    assert sorted(recorded.tokenized.plain) == sorted(set(batch.texts))
    network = recorded.trained
    assert network is not None
    assert torch.allclose(_of_impressions(renewed), _fresh(network, batch)[0], atol=1e-5)
    assert not torch.allclose(renewed.pair_embedding, first.pair_embedding, atol=0.05)
    recorded.wait(4)
    recorded.score(batch)
    assert recorded.tokenized.plain == []


def test_what_is_learned_from_is_remembered_as_it_is_said_now() -> None:
    recorded, batch = RecordedEncoder(joint=True, encoder_share=0.5), _batch()
    recorded.learn(batch)
    with torch.no_grad():
        for parameter in recorded.trained.parameters():  # type: ignore[union-attr]
            parameter.mul_(1.2)
    second = recorded.learn(batch)
    fresh = set(second.anchor_index.tolist())
    third = recorded.score(batch)
    cached = [place for place in sorted(fresh) if _pair_at(batch, third, place) not in set(recorded.tokenized.plain)]
    assert cached
    assert torch.allclose(third.pair_embedding[cached], second.pair_embedding[cached], rtol=1e-3, atol=HALF)


def test_stage_one_is_never_encoded_again_where_it_is_all() -> None:
    recorded, batch = RecordedEncoder(joint=False, pair_refresh=1), _batch()
    recorded.learn(batch)
    recorded.wait(50)
    recorded.learn(batch)
    assert recorded.tokenized.plain == []


@pytest.mark.parametrize("joint", [False, True])
def test_a_cache_of_three_slots_reads_what_a_large_one_reads(joint: bool) -> None:
    small, large = (RecordedEncoder(joint=joint, encoder_share=0.3, pair_cache_size=slots) for slots in (3, 1 << 16))
    for seed in range(3):
        batch = _batch(seed)
        few, many = small.learn(batch), large.learn(batch)
        assert torch.allclose(few.pair_embedding, many.pair_embedding, rtol=1e-3, atol=HALF)


def test_a_restored_reader_goes_on_bit_for_bit() -> None:
    undisturbed = RecordedEncoder(joint=True, encoder_share=0.3, pair_refresh=3)
    for seed in range(3):
        undisturbed.learn(_batch(seed))
    restored = RecordedEncoder(joint=True, encoder_share=0.3, pair_refresh=3)
    restored.reader.load_state_dict({name: tensor.clone() for name, tensor in undisturbed.reader.state_dict().items()})
    assert restored.reader.step == 3
    for seed in (0, 5, 1, 2, 0):
        one, other = undisturbed.learn(_batch(seed)), restored.learn(_batch(seed))
        assert torch.equal(one.pair_embedding, other.pair_embedding)
        assert torch.equal(one.stage_one_logits, other.stage_one_logits)
        assert undisturbed.tokenized.plain == restored.tokenized.plain
        assert undisturbed.tokenized.learned == restored.tokenized.learned


def test_the_state_of_another_encoder_is_refused_and_says_which() -> None:
    one, other = RecordedEncoder(joint=False, seed=0), RecordedEncoder(joint=False, seed=1)
    one.learn(_batch())
    shas = [load_encoder(tiny_encoder(seed)).sha256[:12] for seed in (0, 1)]
    with pytest.raises(CheckpointError, match=f"{shas[0]}.*{shas[1]}") as caught:
        other.reader.load_state_dict(one.reader.state_dict())
    assert caught.value.remedies == (Remedy.SAME_ENCODER,)
    other.learn(_batch())
    assert sorted(other.tokenized.plain) == sorted(set(_batch().texts))


def test_a_batch_gets_stage_ones_softmax_in_place_of_the_logged_level() -> None:
    recorded, batch = RecordedEncoder(joint=False), _batch()
    encodings = recorded.learn(batch)
    enriched = with_text_features(batch, encodings, infers_levels=True)
    _, logits, similarity = _fresh(load_encoder(tiny_encoder()).network, batch)
    assert enriched.level_weights == pytest.approx(softmax(logits.numpy(), axis=1), abs=1e-5)
    assert enriched.similarity == pytest.approx(similarity.numpy(), abs=1e-5)
    assert enriched.likeliest_levels.tolist() == (logits.argmax(dim=1) + 1).tolist()


def test_a_batch_keeps_the_logged_level_where_it_is_given() -> None:
    recorded, batch = RecordedEncoder(joint=False), _batch()
    enriched = with_text_features(batch, recorded.learn(batch), infers_levels=False)
    assert enriched.level_weights.tolist() == np.eye(4)[batch.levels - 1].tolist()
    assert enriched.similarity is not None
    assert batch.similarity is None


@pytest.mark.parametrize("joint", [False, True])
def test_texts_of_any_kind_are_read(joint: bool) -> None:
    texts = [
        ("", ""),
        ("usb", ""),
        ("🎉", "🎉🎉"),
        ("query 1", "title 1 " * 250),
        ("\0\ud800", "\u200b"),
        ("q" * 2000, "x"),
    ]
    batch = _batch()
    strange = dataclasses.replace(batch, texts=tuple(texts[n % len(texts)] for n in range(batch.impressions)))
    recorded = RecordedEncoder(joint=joint, encoder_share=0.5)
    for _ in range(2):
        encodings = recorded.learn(strange)
        assert bool(torch.isfinite(encodings.pair_embedding).all())
        assert bool(torch.isfinite(encodings.similarity).all())
        assert bool(torch.isfinite(encodings.stage_one_logits).all())
