"""What a student learns from a teacher's labels: level distributions, and the directions of queries and titles."""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from prectr.model.text.encoder.network import EncoderOutput


def distillation_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(teacher at T ‖ student at T), mean over pairs (Hinton et al. 2015).

    logits, teacher: float32[B, 4], the student's logits and the teacher's log-probabilities of the levels.
    """
    student = torch.log_softmax(logits / temperature, dim=1)
    target = torch.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * functional.kl_div(student, target, log_target=True, reduction="batchmean")


def vector_loss(encoded: EncoderOutput, query: Tensor, item: Tensor) -> Tensor:
    """1 − cosine between the student's vectors and the teacher's, mean over pairs and over query and item.

    query, item: float32[B, 32], the teacher's vectors as `reduce_vectors` gives them.
    """
    student = torch.cat([encoded.query_vector, encoded.item_vector])
    return (1.0 - functional.cosine_similarity(student, torch.cat([query, item]), dim=1)).mean()


def reduce_vectors(vectors: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """The vectors' parts along their `width` strongest directions, float32[n, width], not brought to length 1.

    vectors: float32[n, W]. The directions are those of the second moments, not of the covariance, so that cosines are
    kept as well as `width` numbers can. Signs are fixed: the largest part of each direction is positive.
    """
    moments = vectors.T.astype(np.float64) @ vectors.astype(np.float64)
    _, directions = np.linalg.eigh(moments)
    strongest = directions[:, ::-1][:, :width]
    signs = np.sign(strongest[np.abs(strongest).argmax(axis=0), np.arange(strongest.shape[1])])
    reduced: NDArray[np.float32] = vectors @ (strongest * signs).astype(np.float32)
    if reduced.shape[1] < width:
        reduced = np.pad(reduced, ((0, 0), (0, width - reduced.shape[1])))
    return reduced


_INIT_STD: Final = 0.04
"""Standard deviation of word embeddings that start from a teacher's vectors."""


def init_from_vectors(
    embeddings: Tensor, tokens: dict[str, int], texts: dict[str, int], vectors: NDArray[np.float32]
) -> int:
    """Let the embeddings of tokens that are words start from the teacher's vectors of these words; how many do.

    embeddings: float32[vocabulary, width], changed in place. tokens: the vocabulary; texts: the place of each text in
    vectors, float32[n, W]. So words that mean alike start alike (reconstruction: the papers' start is not known).
    """
    matched = sorted((token_id, texts[token]) for token, token_id in tokens.items() if token in texts)
    if not matched:
        return 0
    chosen = vectors[[text for _, text in matched]]
    reduced = reduce_vectors(chosen - chosen.mean(axis=0), embeddings.shape[1])
    reduced *= _INIT_STD / max(float(reduced.std()), 1e-9)
    with torch.no_grad():
        embeddings[[place for place, _ in matched]] = torch.from_numpy(reduced).to(embeddings)
    return len(matched)
