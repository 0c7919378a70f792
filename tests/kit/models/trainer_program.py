"""A program that trains on seeded examples, alone or as a rank of several, with checkpoints.

`python -m tests.kit.models.trainer_program`.

Arguments: the folder of the cuts, device, pages, pieces between two cuts (0: none), pages a batch, pages a piece.
Each rank prints a line of JSON at the end. Where there are cuts in the folder, all ranks go on from the newest.
"""

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import msgspec

from prectr.model.distributed.process_group import join_ranks
from prectr.model.training.trainer import Trainer
from prectr.state.errors import PrectrError
from prectr.stream.replay.run_checkpoint import CutWriter, cuts, load_sinks, read_manifest
from tests.kit.models.examples import random_examples, small_config

MODELS = ("lr", "wide-deep+")


class Cut(msgspec.Struct):
    """Where a run was."""

    pages: int
    format: int = 1


def main(folder: Path, device: str, pages: int, cut_every: int, batch_pages: int, piece: int) -> None:
    """Train on everything that is left."""
    ranks = join_ranks(device)
    with ranks or nullcontext():
        config = {"batch_pages": batch_pages, "batch_span": 100.0, "device": device}
        trainers = {model: Trainer(small_config(model=model, **config), ranks=ranks) for model in MODELS}
        leads = ranks is None or ranks.rank == 0
        newest = next((cut.name for cut in cuts(folder)), "") if leads else ""
        if ranks is not None:
            newest = ranks.gather(newest.encode())[0].decode()
        done = 0
        if newest:
            load_sinks(folder / newest, trainers)
            done = read_manifest(folder / newest, Cut).pages
        examples = random_examples(pages, seed=3)
        for number, start in enumerate(range(done, pages, piece), 1):
            for trainer in trainers.values():
                trainer.consume(examples[start : start + piece], 0)
            if leads and cut_every and number % cut_every == 0:
                writer = CutWriter(folder)
                writer.save_sinks(trainers)
                writer.commit(Cut(min(start + piece, pages)))
        for trainer in trainers.values():
            trainer.flush()
        print(json.dumps({model: _result(trainer) for model, trainer in trainers.items()}))


def threads() -> set[str]:
    """The names of this process's threads, those that Python does not know among them."""
    return {(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()}


def _result(trainer: Trainer) -> dict[str, object]:
    return {
        "weights": trainer.weights_sha256(),
        "quality": msgspec.msgpack.encode(trainer.quality.state()).hex(),
        "parents": trainer._parents.clicks.sum(axis=0).tolist(),
        "trained": [trainer.batches, trainer.pages_trained],
    }


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
    except PrectrError as error:
        sys.exit(f"{error}\nthreads left: {sorted(threads())}")
