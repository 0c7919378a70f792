"""`prectr label`: labels pairs of query and title with a teacher model."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from prectr.ops.cli.console import progress_bar
from prectr.ops.cli.options import JsonFile
from prectr.ops.json_file import write_json
from prectr.state.errors import InputError, UsageError


class LabelResult(msgspec.Struct):
    """The JSON result of the command."""

    labels: str
    pairs: int
    newly_labelled: int
    teacher: dict[str, str]
    vectors: dict[str, str] | None


def label(
    pairs: Annotated[Path, typer.Argument(help="Pairs to label: JSON Lines (.gz too) with query and title.")],
    teacher: Annotated[Path, typer.Option(help="Folder of a sequence classifier or a causal language model.")],
    out: Annotated[Path, typer.Option(help="Folder for the labels; an interrupted run resumes in it.")],
    vectors: Annotated[
        Path | None, typer.Option(help="Folder of a sentence encoder; its text embeddings are stored with the labels.")
    ] = None,
    outputs: Annotated[
        str | None, typer.Option(help="Outputs of the classifier from least to most relevant, such as 2,1,0.")
    ] = None,
    prompt: Annotated[
        Path | None, typer.Option(help="File with the prompt of a language model, with {query} and {title}.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Pairs per batch.")] = 64,
    dtype: Annotated[str, typer.Option(help="Data type of the teacher: float32, bfloat16 or float16.")] = ("float32"),
    device: Annotated[str, typer.Option(help="Device: auto, cpu or cuda.")] = "auto",
    json: JsonFile = None,
) -> None:
    """Label pairs with a teacher's distribution over relevance levels; the folder also records the provenance.

    The outputs of a classifier are spread evenly over the levels 1 to 4; a single output is the logit of level 4
    against level 1. A language model answers with a digit: its probabilities of 1 to 4 are those of the levels.

    Example: prectr label pairs.jsonl.gz --teacher teacher --out labels
    Example, with a 7B model on a GPU: prectr label pairs.jsonl.gz --teacher Qwen2.5-7B-Instruct --dtype bfloat16
    --device cuda --batch 32 --out labels
    """
    import torch  # noqa: PLC0415 (takes seconds to import, and --help needs none)

    from prectr.model.text.encoder.graded import read_pairs  # noqa: PLC0415
    from prectr.model.text.teacher.labels import read_manifest, write_labels  # noqa: PLC0415
    from prectr.model.text.teacher.sentence_encoder import SentenceEncoder  # noqa: PLC0415
    from prectr.model.text.teacher.teacher import open_teacher  # noqa: PLC0415
    from prectr.model.training.device import pick_device  # noqa: PLC0415

    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in dtypes:
        raise UsageError(f"--dtype is {dtype!r}; it must be float32, bfloat16 or float16")
    torch_device = pick_device(device)
    unlabelled = read_pairs(pairs)
    teacher_model = open_teacher(
        teacher, torch_device, dtype=dtypes[dtype], prompt=_read_prompt(prompt), order=_read_order(outputs)
    )
    sentences = SentenceEncoder(vectors, torch_device) if vectors is not None else None
    with progress_bar("label", len(unlabelled)) as bar:
        newly_labelled = write_labels(
            out, unlabelled, teacher_model, batch_size=batch, sentences=sentences, on_progress=bar.update
        )
    manifest = read_manifest(out)
    result = LabelResult(str(out), manifest.pairs, newly_labelled, manifest.teacher, manifest.vectors)
    write_json(json, result)
    typer.echo(
        f"{manifest.pairs:,} pairs labelled by {manifest.teacher['model']}, {newly_labelled:,} of them now: {out}"
    )


def _read_prompt(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the prompt {path} cannot be read: {error}; name a text file") from error


def _read_order(outputs: str | None) -> list[int] | None:
    if outputs is None:
        return None
    try:
        return [int(part) for part in outputs.split(",")]
    except ValueError:
        raise UsageError(f"--outputs is {outputs!r}; it must be comma-separated numbers, such as 2,1,0") from None
