"""Exact AUC and page GAUC of scores, against clicks or against click probabilities."""

import numpy as np
from numpy.typing import NDArray


def auc(scores: NDArray[np.float64], labels: NDArray[np.float64]) -> float:
    """Area under the ROC curve; ties count half, NaN if there is only one class.

    scores, labels: float64 (n,). A label may be a probability p (expected labels): the case counts as a click with
    weight p and as no click with weight 1 − p.
    """
    _, score_index = np.unique(scores, return_inverse=True)
    clicks = np.bincount(score_index, labels)
    non_clicks = np.bincount(score_index, 1.0 - labels)
    total = clicks.sum() * non_clicks.sum()
    below = np.cumsum(non_clicks) - non_clicks
    return float((clicks * (below + 0.5 * non_clicks)).sum() / total) if total > 0 else float("nan")


def page_gauc(scores: NDArray[np.float64], labels: NDArray[np.float64], present: NDArray[np.bool_]) -> float:
    """Mean AUC within pages, weighted by impressions; pages with one class are excluded.

    scores, labels: float64 (pages, S); present: bool (pages, S), mask of impressions. With probabilities as labels,
    every page with at least two impressions has both classes.
    """
    clicks = np.where(present, labels, 0.0)
    non_clicks = np.where(present, 1.0 - labels, 0.0)
    total = clicks.sum(axis=1) * non_clicks.sum(axis=1)
    kept = total > 1e-12
    scores, clicks, non_clicks, total = scores[kept], clicks[kept], non_clicks[kept], total[kept]
    difference = scores[:, :, None] - scores[:, None, :]
    wins = np.einsum("pi,pij,pj->p", clicks, (difference > 0) + 0.5 * (difference == 0), non_clicks)
    if labels.dtype.kind == "f" and np.any((labels > 0) & (labels < 1)):
        self_pairs = 0.5 * (clicks * non_clicks).sum(axis=1)
        wins, total = wins - self_pairs, total - 2 * self_pairs
    return float(np.average(wins / total, weights=present[kept].sum(axis=1)))
