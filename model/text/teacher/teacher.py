"""Teachers: larger models that grade a title's relevance to a query as a distribution over the four levels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prectr.model.text.encoder.tokens import Pair
from prectr.model.text.teacher.local_model import model_sha256, open_config, open_model, open_tokenizer
from prectr.state.aggregates import LEVEL_COUNT
from prectr.state.errors import UsageError

MAX_TOKENS: Final = 64
"""Maximum tokens of a pair, for a sequence classifier."""

_MAX_PROMPT_TOKENS: Final = 512
"""Maximum tokens of a prompt, for a language model."""

_TITLE_CHARACTERS: Final = 500
"""Maximum characters of a title in a prompt."""

PROMPT: Final = """You judge the results of a product search.
Query: {query}
Product: {title}
How relevant is the product to the query? 1: irrelevant, 2: weakly relevant, 3: relevant, 4: strongly relevant.
Answer with one digit.
Answer:"""
"""The prompt of a causal language model; {query} and {title} are filled in."""

_MIN_PROBABILITY: Final = 1e-6
"""Minimum probability of a level that no output of a classifier maps to."""


class Teacher(Protocol):
    """A model that grades pairs."""

    @property
    def identity(self) -> dict[str, str]:
        """Everything that determines its answers: kind, digest of the model, prompt, …"""

    def lengths(self, pairs: Sequence[Pair]) -> NDArray[np.int64]:
        """int64[n]: approximate length of each pair, to batch pairs of similar length."""

    def log_levels(self, pairs: Sequence[Pair]) -> NDArray[np.float32]:
        """Log-probabilities of the levels 1 to 4, float32[n, 4]; the pairs are one batch."""


class ClassifierTeacher:
    """A sequence classifier of transformers over (query, title).

    Its outputs, in rising order of relevance, are spread evenly over levels 1 to 4; one between two levels is
    interpolated. Four outputs are the levels; two are levels 1 and 4; a single one is the logit of level 4 against
    level 1.
    """

    def __init__(
        self,
        folder: Path,
        device: torch.device,
        *,
        dtype: torch.dtype = torch.float32,
        order: Sequence[int] | None = None,
    ) -> None:
        """Open a folder. order: the outputs from least to most relevant, if the model has them otherwise.

        Raises:
            UsageError: the folder holds no such model, or `order` is not a permutation of the outputs.
        """
        self._tokenizer = open_tokenizer(folder)
        self._model = open_model(folder, "AutoModelForSequenceClassification", device, dtype)
        self._device = device
        outputs = int(self._model.config.num_labels)
        self._order = list(order) if order is not None else list(range(outputs))
        if sorted(self._order) != list(range(outputs)):
            raise UsageError(
                f"the order of outputs is {self._order}, and {folder} has {outputs}: name each of 0 to {outputs - 1}"
            )
        self._interpolation = torch.tensor(level_interpolation(max(outputs, 2)), dtype=torch.float32)
        self.identity = {
            "kind": "classifier",
            "model": folder.name,
            "sha256": model_sha256(folder),
            "dtype": str(dtype).removeprefix("torch."),
            "order": ",".join(map(str, self._order)),
            "max_tokens": str(MAX_TOKENS),
        }

    def lengths(self, pairs: Sequence[Pair]) -> NDArray[np.int64]:
        """int64[n], in characters, which approximate tokens well enough."""
        return np.array([len(query) + len(title) for query, title in pairs], dtype=np.int64)

    def log_levels(self, pairs: Sequence[Pair]) -> NDArray[np.float32]:
        """Log-probabilities of the levels, float32[n, 4]."""
        tokens = self._tokenizer(
            [query for query, _ in pairs],
            [title for _, title in pairs],
            padding=True,
            truncation="longest_first",
            max_length=MAX_TOKENS,
            return_tensors="pt",
        ).to(self._device)
        with torch.inference_mode():
            logits = self._model(**tokens).logits.float().cpu()
        return log_levels_of_outputs(logits, self._order, self._interpolation).numpy()


class CausalTeacher:
    """A causal language model prompted for a digit; the level distribution is that of its answers 1 to 4."""

    def __init__(
        self, folder: Path, device: torch.device, *, dtype: torch.dtype = torch.float32, prompt: str = PROMPT
    ) -> None:
        """Open a folder.

        Raises:
            UsageError: the folder holds no such model, the prompt lacks {query} or {title}, or two answers begin with
                the same token.
        """
        for part in ("{query}", "{title}"):
            if part not in prompt:
                raise UsageError(f"the prompt lacks {part}: it must name both {{query}} and {{title}}")
        self._tokenizer = open_tokenizer(folder)
        self._model = open_model(folder, "AutoModelForCausalLM", device, dtype)
        self._device = device
        self._prompt = prompt
        self._tokenizer.padding_side = "left"
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token or self._tokenizer.unk_token
        self._answer_ids = self._find_answer_ids(folder)
        self.identity = {
            "kind": "causal",
            "model": folder.name,
            "sha256": model_sha256(folder),
            "dtype": str(dtype).removeprefix("torch."),
            "prompt": prompt,
            "max_tokens": str(_MAX_PROMPT_TOKENS),
        }

    def lengths(self, pairs: Sequence[Pair]) -> NDArray[np.int64]:
        """int64[n], in characters, which approximate tokens well enough."""
        return np.array([len(query) + min(len(title), _TITLE_CHARACTERS) for query, title in pairs], dtype=np.int64)

    def log_levels(self, pairs: Sequence[Pair]) -> NDArray[np.float32]:
        """Log-probabilities of the levels among the four answers, float32[n, 4]."""
        prompts = [self._format_prompt(query, title) for query, title in pairs]
        # Truncate at the left, to keep the question at the end.
        self._tokenizer.truncation_side = "left"
        tokens = self._tokenizer(
            prompts, padding=True, truncation=True, max_length=_MAX_PROMPT_TOKENS, return_tensors="pt"
        ).to(self._device)
        tokens.pop("token_type_ids", None)
        with torch.inference_mode():
            logits = self._model(**tokens).logits[:, -1].float().cpu()
        return torch.log_softmax(logits[:, self._answer_ids], dim=1).numpy()

    def _format_prompt(self, query: str, title: str) -> str:
        # str.replace in sequence would also fill in a query that contains "{title}".
        before, _, rest = self._prompt.partition("{query}")
        if "{title}" in rest:
            between, _, after = rest.partition("{title}")
            return f"{before}{query}{between}{title[:_TITLE_CHARACTERS]}{after}"
        first, _, between = before.partition("{title}")
        return f"{first}{title[:_TITLE_CHARACTERS]}{between}{query}{rest}"

    def _find_answer_ids(self, folder: Path) -> list[int]:
        """The first token of each answer, after the prompt."""
        space = "" if self._prompt.endswith((" ", "\n")) else " "
        prompt_ids = self._tokenizer.encode(self._prompt, add_special_tokens=False)
        answers = []
        for level in range(1, LEVEL_COUNT + 1):
            answered_ids = self._tokenizer.encode(f"{self._prompt}{space}{level}", add_special_tokens=False)
            answer_ids = [token for token in answered_ids[len(prompt_ids) :] if self._tokenizer.decode([token]).strip()]
            answers.append(answer_ids[0] if answer_ids else answered_ids[-1])
        if len(set(answers)) < LEVEL_COUNT:
            raise UsageError(
                f"{folder}: the answers 1 to 4 begin with the tokens {answers}, which are not distinct; "
                "change the end of the prompt"
            )
        return answers


def open_teacher(
    folder: Path,
    device: torch.device,
    *,
    dtype: torch.dtype = torch.float32,
    prompt: str | None = None,
    order: Sequence[int] | None = None,
) -> Teacher:
    """Open the teacher in a folder: a language model if configured as one or given a prompt, else a classifier.

    Raises:
        UsageError: the folder holds neither.
    """
    architectures = [str(name) for name in getattr(open_config(folder), "architectures", None) or []]
    if prompt is not None or any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures):
        if order is not None:
            raise UsageError(f"{folder} is a language model: an order of outputs is for classifiers")
        return CausalTeacher(folder, device, dtype=dtype, prompt=prompt if prompt is not None else PROMPT)
    return ClassifierTeacher(folder, device, dtype=dtype, order=order)


def level_interpolation(outputs: int) -> NDArray[np.float64]:
    """float64[outputs, 4]: the share of each output in each level; rows sum to 1."""
    level_index = np.linspace(0.0, LEVEL_COUNT - 1.0, outputs)
    return np.maximum(0.0, 1.0 - np.abs(level_index[:, None] - np.arange(LEVEL_COUNT)))


def log_levels_of_outputs(logits: Tensor, order: Sequence[int], interpolation: Tensor) -> Tensor:
    """Log-probabilities of the levels, float32[n, 4], from a classifier's logits, float32[n, outputs]."""
    logits = logits[:, list(order)]
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    if logits.shape[1] == LEVEL_COUNT:
        return torch.log_softmax(logits, dim=1)
    return torch.log(torch.softmax(logits, dim=1) @ interpolation + _MIN_PROBABILITY)
