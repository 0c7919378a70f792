"""Rows of `bench.quality` as tests want them."""

from bench.quality.rows import Row

SMALL = {
    "embedding_rows": 4096,
    "wide_rows": 4096,
    "batch_span": "1d",
    "pair_cache_size": 4096,
    "exposed_pairs_bits": 4096,
}
"""Settings of a trainer that is made in no time."""


def row(name: str, seed: int = 0, track: str = "T", auc: float = 0.7, **metrics: float) -> Row:
    """A row whose figures are those given, or alike for every model."""
    model, _, without = name.partition(" without ")
    values = dict.fromkeys(("gauc", "log_loss", "calibration", "auc_new", "auc_low", "auc_active"), auc)
    others = {"auc_never_shown": 0.5, "expected_clicks": 1.5, "share_level_1": 0.05, "share_of_reference": 0.8}
    values |= {"auc_expected": auc, "gauc_expected": auc} | others | metrics
    return Row(model=model, without=(without,) if without else (), track=track, seed=seed, auc=auc, **values)
