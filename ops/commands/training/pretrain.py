"""`prectr pretrain`: trains a text encoder on graded pairs and, optionally, a teacher's labels."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from prectr.ops.cli.console import progress_bar
from prectr.ops.cli.options import JsonFile
from prectr.ops.json_file import write_json
from prectr.state.errors import UsageError


class EpochRow(msgspec.Struct):
    """One epoch."""

    phase: str
    epoch: int
    loss: float
    held_out_log_loss: float | None
    held_out_accuracy: float | None


class PretrainReport(msgspec.Struct):
    """The JSON result of the command."""

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
    out: Annotated[Path, typer.Option(help="Folder for the encoder; must not contain one yet.")],
    labels: Annotated[Path | None, typer.Option(help="Folder of labels written by `prectr label`.")] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="File of the pairs that were labelled; required with --labels.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Maximum number of epochs over the graded pairs.")] = None,
    distil_epochs: Annotated[int | None, typer.Option(min=1, help="Epochs over the labelled pairs.")] = None,
    held_out: Annotated[
        float | None, typer.Option(min=0, max=0.9, help="Share of the queries held out for early stopping; 0 for none.")
    ] = None,
    vocabulary: Annotated[int | None, typer.Option(min=100, help="Maximum size of the vocabulary.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the weights and of the order of the pairs.")] = 0,
    device: Annotated[str, typer.Option(help="Device: auto, cpu or cuda.")] = "auto",
    json: JsonFile = None,
) -> None:
    """Build a vocabulary, distil a teacher's labels if there are any, then fine-tune on graded pairs.

    The result can be loaded with AutoModel and AutoTokenizer of transformers.

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
        raise UsageError("--labels and --pairs are required together: the labels and the file of the labelled pairs")
    if (out / HEADER).exists():
        raise UsageError(f"{out} already contains an encoder: name another folder or remove it")
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
    write_json(json, report)
    typer.echo(f"encoder {sha256[:12]}, {report.parameters:,} parameters, {report.vocabulary:,} tokens: {out}")
    last = next(
        (row for row in report.epochs if row.phase == "tune" and row.epoch == made.best_epoch), report.epochs[-1]
    )
    if last.held_out_log_loss is not None:
        typer.echo(
            f"kept epoch {last.epoch} of fine-tuning: held-out log loss {last.held_out_log_loss:.4f}, "
            f"level accuracy {last.held_out_accuracy:.3f}"
        )
