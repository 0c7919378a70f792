"""Distillation of a teacher's labels: level distributions, and the directions of queries and titles."""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from prectr.model.text.encoder.network import EncoderOutput

_INIT_STD: Final = 0.04
"""Standard deviation of word embeddings that are initialised from a teacher's vectors."""


def distillation_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(teacher at T ‖ student at T), mean over pairs (Hinton et al. 2015).

    logits: float32[B, 4], of the student. teacher: float32[B, 4], log-probabilities of the levels.
    """
    student = torch.log_softmax(logits / temperature, dim=1)
    target = torch.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * functional.kl_div(student, target, log_target=True, reduction="batchmean")


def vector_loss(encoded: EncoderOutput, query: Tensor, item: Tensor) -> Tensor:
    """1 − cosine between the student's vectors and the teacher's, mean over pairs and over query and item.

    query, item: float32[B, 32], the teacher's vectors after `reduce_vectors`.
    """
    student = torch.cat([encoded.query_vector, encoded.item_vector])
    return (1.0 - functional.cosine_similarity(student, torch.cat([query, item]), dim=1)).mean()


def reduce_vectors(vectors: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Project vectors float32[n, W] onto their `width` principal directions: float32[n, width], not normalised.

    The directions are those of the uncentred second moments, so that cosines are preserved as well as possible. Signs
    are fixed: the largest component of each direction is positive.
    """
    moments = vectors.T.astype(np.float64) @ vectors.astype(np.float64)
    _, directions = np.linalg.eigh(moments)
    strongest = directions[:, ::-1][:, :width]
    signs = np.sign(strongest[np.abs(strongest).argmax(axis=0), np.arange(strongest.shape[1])])
    reduced: NDArray[np.float32] = vectors @ (strongest * signs).astype(np.float32)
    if reduced.shape[1] < width:
        reduced = np.pad(reduced, ((0, 0), (0, width - reduced.shape[1])))
    return reduced


def init_from_vectors(
    embeddings: Tensor, tokens: dict[str, int], texts: dict[str, int], vectors: NDArray[np.float32]
) -> int:
    """Initialise the embeddings of tokens that are whole words from the teacher's vectors of these words.

    Words of similar meaning then start with similar embeddings (reconstruction: the papers' initialisation is unknown).

    Args:
        embeddings: float32[vocabulary, width], changed in place.
        tokens: the vocabulary, token to id.
        texts: index of each text in `vectors`.
        vectors: float32[n, W].

    Returns:
        The number of embeddings initialised.
    """
    matched = sorted((token_id, texts[token]) for token, token_id in tokens.items() if token in texts)
    if not matched:
        return 0
    chosen = vectors[[text for _, text in matched]]
    reduced = reduce_vectors(chosen - chosen.mean(axis=0), embeddings.shape[1])
    reduced *= _INIT_STD / max(float(reduced.std()), 1e-9)
    with torch.no_grad():
        embeddings[[token_id for token_id, _ in matched]] = torch.from_numpy(reduced).to(embeddings)
    return len(matched)
