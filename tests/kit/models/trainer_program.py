"""A program that trains on seeded examples, alone or as a rank of several, with checkpoints.

`python -m tests.kit.models.trainer_program`.

Arguments: checkpoint folder, device, pages, chunks between checkpoints (0: none), pages per batch, pages per chunk.
Each rank prints a line of JSON at the end. If the folder has checkpoints, all ranks resume from the newest.
"""

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import msgspec

from prectr.model.distributed.process_group import init_process_group
from prectr.model.training.trainer import Trainer
from prectr.state.errors import PrectrError
from prectr.stream.replay.run_checkpoint import CheckpointWriter, list_checkpoints, load_sinks, read_manifest
from tests.kit.models.examples import random_examples, small_config

MODELS = ("lr", "wide-deep+")


class RunCheckpoint(msgspec.Struct):
    """Where a run was."""

    pages: int
    format: int = 1


def main(folder: Path, device: str, pages: int, checkpoint_interval: int, batch_pages: int, chunk_pages: int) -> None:
    """Train on everything that is left."""
    ranks = init_process_group(device)
    with ranks or nullcontext():
        config = {"batch_pages": batch_pages, "batch_span": 100.0, "device": device}
        trainers = {model: Trainer(small_config(model=model, **config), process_group=ranks) for model in MODELS}
        is_leader = ranks is None or ranks.rank == 0
        newest = (
            next((newest_checkpoint.name for newest_checkpoint in list_checkpoints(folder)), "") if is_leader else ""
        )
        if ranks is not None:
            newest = ranks.all_gather_bytes(newest.encode())[0].decode()
        done = 0
        if newest:
            load_sinks(folder / newest, trainers)
            done = read_manifest(folder / newest, RunCheckpoint).pages
        examples = random_examples(pages, seed=3)
        for number, start in enumerate(range(done, pages, chunk_pages), 1):
            for trainer in trainers.values():
                trainer.consume(examples[start : start + chunk_pages], 0)
            if is_leader and checkpoint_interval and number % checkpoint_interval == 0:
                writer = CheckpointWriter(folder)
                writer.save_sinks(trainers)
                writer.commit(RunCheckpoint(min(start + chunk_pages, pages)))
        for trainer in trainers.values():
            trainer.flush()
        print(json.dumps({model: _result(trainer) for model, trainer in trainers.items()}))


def thread_names() -> set[str]:
    """The names of this process's threads, those that Python does not know among them."""
    return {(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()}


def _result(trainer: Trainer) -> dict[str, object]:
    return {
        "weights": trainer.weights_sha256(),
        "quality": msgspec.msgpack.encode(trainer.quality.state()).hex(),
        "parents": trainer._prior_rates.clicks.sum(axis=0).tolist(),
        "trained": [trainer.batches, trainer.pages_trained],
    }


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
    except PrectrError as error:
        sys.exit(f"{error}\nthreads left: {sorted(thread_names())}")
