"""`prectr pretrain`: makes a text encoder from graded pairs, and from a teacher's labels where there are any."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from prectr.ops.cli.console import progress_bar
from prectr.state.errors import UsageError


class EpochRow(msgspec.Struct):
    """One pass over the data."""

    phase: str
    epoch: int
    loss: float
    held_out_log_loss: float | None
    held_out_accuracy: float | None


class PretrainReport(msgspec.Struct):
    """What the command made, for a program."""

    encoder: str
    sha256: str
    parameters: int
    vocabulary: int
    graded_pairs: int
    unlabelled_pairs: int
    best_epoch: int | None
    epochs: list[EpochRow]


def pretrain(
    graded: Annotated[
        Path, typer.Argument(help="Graded pairs: JSON Lines (.gz too) with query, title, level 1–4 or grade 0–3.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the encoder; must not hold one yet.")],
    labels: Annotated[Path | None, typer.Option(help="Folder of a teacher's labels, from `prectr label`.")] = None,
    pairs: Annotated[Path | None, typer.Option(help="The pairs that these labels are of.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the graded pairs, at most.")] = None,
    distil_epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the labelled pairs.")] = None,
    held_out: Annotated[
        float | None, typer.Option(min=0, max=0.9, help="Share of the queries held out to know when to stop; 0: none.")
    ] = None,
    vocabulary: Annotated[int | None, typer.Option(min=100, help="Tokens of the vocabulary, at most.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the weights and of the order of the pairs.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    json: Annotated[Path | None, typer.Option(help="Write what was done to this file too, for a program.")] = None,
) -> None:
    """Train a vocabulary, learn a teacher's labels if there are any, then fine-tune on graded pairs.

    The folder opens with AutoModel and AutoTokenizer of transformers.

    Example: prectr pretrain graded.jsonl.gz --labels labels --pairs pairs.jsonl.gz --out encoder
    """
    from prectr.model.config import PretrainConfig  # noqa: PLC0415
    from prectr.model.text.encoder.artifact import HEADER, save_encoder  # noqa: PLC0415
    from prectr.model.text.encoder.graded import read_graded, read_pairs  # noqa: PLC0415
    from prectr.model.text.encoder.network import count_parameters  # noqa: PLC0415
    from prectr.model.text.encoder.pretrain import pretrain as run  # noqa: PLC0415
    from prectr.model.text.encoder.provenance import provenance_of  # noqa: PLC0415
    from prectr.model.text.teacher.labels import read_labels  # noqa: PLC0415
    from prectr.model.training.device import pick_device  # noqa: PLC0415 (torch takes seconds to import, and --help needs none)

    if (labels is None) != (pairs is None):
        raise UsageError("--labels and --pairs go together: the labels, and the file of the pairs that they are of")
    if (out / HEADER).exists():
        raise UsageError(f"{out} holds an encoder already: name another folder, or remove it")
    overrides = {"tune_epochs": epochs, "distil_epochs": distil_epochs, "held_out": held_out, "vocab_size": vocabulary}
    config = PretrainConfig(seed=seed, **{name: value for name, value in overrides.items() if value is not None})  # type: ignore[arg-type]
    torch_device = pick_device(device)
    graded_pairs = read_graded(graded)
    unlabelled = read_pairs(pairs) if pairs is not None else []
    teacher_labels = read_labels(labels, unlabelled) if labels is not None else None
    with progress_bar("pretrain", 1.0) as bar:
        made = run(
            graded_pairs,
            config,
            unlabelled=unlabelled,
            labels=teacher_labels,
            device=torch_device,
            on_progress=bar.update,
        )
    provenance = provenance_of(
        made, config, graded=graded_pairs, labels=teacher_labels.manifest if teacher_labels is not None else None
    )
    sha256 = save_encoder(out, made.network, made.tokenizer, pairs=graded_pairs, provenance=provenance)
    report = PretrainReport(
        encoder=str(out),
        sha256=sha256,
        parameters=count_parameters(made.network),
        vocabulary=made.tokenizer.vocab_size,
        graded_pairs=len(graded_pairs),
        unlabelled_pairs=len(unlabelled),
        best_epoch=made.best_epoch,
        epochs=[EpochRow(*row) for row in made.epochs],
    )
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    typer.echo(f"encoder {sha256[:12]}, {report.parameters:,} parameters, {report.vocabulary:,} tokens: {out}")
    last = next(
        (row for row in report.epochs if row.phase == "tune" and row.epoch == made.best_epoch), report.epochs[-1]
    )
    if last.held_out_log_loss is not None:
        typer.echo(
            f"kept pass {last.epoch} of fine-tuning: held-out log loss {last.held_out_log_loss:.4f}, "
            f"level accuracy {last.held_out_accuracy:.3f}"
        )
