"""The oracle: scores by a simulated world's true click probabilities, an upper bound for every model."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prectr.model.features.hashing import hash_text
from prectr.model.quality.quality import Quality, QualityState
from prectr.model.quality.resamples import Resamples, ResamplesState
from prectr.model.quality.scored_pages import ScoredPages
from prectr.state.errors import InputError
from prectr.stream.records import Example, decode_page


class _State(msgspec.Struct, frozen=True):
    quality: QualityState
    resamples: ResamplesState


class Oracle:
    """An `ExampleSink` that scores every page by its true click probabilities; nothing is trained."""

    def __init__(self, truth: Path) -> None:
        """Read the exposed impressions of a simulator's ground-truth file.

        Raises:
            InputError: it cannot be read, or is not a ground-truth file.
        """
        self._truth = truth
        try:
            table = pq.read_table(truth, columns=["slice", "request_id", "item_id", "probability"])
        except (OSError, ValueError) as error:
            raise InputError(f"{truth} is not a ground-truth file of the simulator: {error}") from error
        table = table.filter(pc.equal(table["slice"], "exposed"))
        self._probabilities: dict[tuple[str, str], float] = {
            (request_id, item_id): probability
            for request_id, item_id, probability in zip(
                table["request_id"].to_pylist(),
                table["item_id"].to_pylist(),
                table["probability"].to_pylist(),
                strict=True,
            )
        }
        self.quality = Quality()
        self.resamples = Resamples()
        self.query_losses = None
        self.reranking = None
        self.pages_trained = 0

    def weights_sha256(self) -> None:
        """None: there are no weights."""

    def explain_newest(self) -> None:
        """None: no levels are inferred."""

    def features_summary(self) -> None:
        """None: no features are read."""

    def consume(self, examples: Sequence[Example], watermark: int) -> None:
        """Score each page.

        Raises:
            InputError: a page is missing in the ground truth, which is of another log.
        """
        if not examples:
            return
        pages = [decode_page(example.page) for example in examples]
        probability = np.array(
            [self._probability(page.request_id, item.item_id) for page in pages for item in page.items]
        )
        scored = ScoredPages(
            logits=np.log(probability) - np.log1p(-probability),
            labels=np.frombuffer(b"".join(example.labels for example in examples), np.uint8),
            levels=np.frombuffer(b"".join(example.levels for example in examples), np.uint8),
            positions=np.array([item.position for page in pages for item in page.items]),
            category=np.zeros(len(probability), np.uint64),
            page_sizes=np.array([len(page.items) for page in pages]),
            user_activity=np.array([example.user_activity for example in examples]),
            closes_at=np.array([example.closes_at for example in examples]),
            page_keys=np.array([hash_text(example.request_id) for example in examples], np.uint64),
            user_keys=np.array([hash_text(example.user_id) for example in examples], np.uint64),
            query_keys=np.array([hash_text(example.query) for example in examples], np.uint64),
        )
        self.resamples.add(scored, self.quality.add_pages(scored))

    def flush(self) -> None:
        """Do nothing: no batch is open."""

    def save(self, folder: Path) -> None:
        """Write the quality to a folder."""
        state = _State(self.quality.state(), self.resamples.state())
        (folder / "quality.msgpack").write_bytes(msgspec.msgpack.encode(state))

    def load(self, folder: Path) -> None:
        """Restore the quality from a folder."""
        state = msgspec.msgpack.decode((folder / "quality.msgpack").read_bytes(), type=_State)
        self.quality = Quality.from_state(state.quality)
        self.resamples = Resamples.from_state(state.resamples)

    def _probability(self, request_id: str, item_id: str) -> float:
        try:
            return self._probabilities[request_id, item_id]
        except KeyError as error:
            raise InputError(
                f"{self._truth} has no item {item_id!r} on page {request_id!r}: "
                "use the ground truth that was simulated together with this log"
            ) from error
