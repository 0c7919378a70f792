"""Models of transformers in local folders: opened offline, with one-line errors."""

import hashlib
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from prectr.state.errors import UsageError

_AUTO_CLASSES: Final = {
    "AutoModel": AutoModel,
    "AutoModelForSequenceClassification": AutoModelForSequenceClassification,
    "AutoModelForCausalLM": AutoModelForCausalLM,
}

_WEIGHTS: Final = "*.safetensors"
_READ_BYTES: Final = 1 << 22


def open_config(folder: Path) -> Any:
    """Open the configuration of a model; UsageError: the folder holds no model."""
    if not (folder / "config.json").is_file():
        problem = "has no config.json" if folder.is_dir() else "is not a folder"
        raise UsageError(f"{folder} {problem}: use the folder of a transformers model (config.json, *.safetensors)")
    if next(folder.glob(_WEIGHTS), None) is None:
        raise UsageError(f"{folder} has no weights: it must hold *.safetensors beside config.json")
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder} is not a model that transformers knows: {_first_line(error)}") from error


def open_tokenizer(folder: Path) -> Any:
    """Open the tokenizer of a model; UsageError: there is none."""
    open_config(folder)
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder} has no tokenizer that transformers can open: {_first_line(error)}") from error


def open_model(folder: Path, auto_class: str, device: torch.device, dtype: torch.dtype = torch.float32) -> Any:
    """Open a model in evaluation mode on a device; auto_class: the name of an `Auto…` class of transformers.

    Raises:
        UsageError: the folder holds no such model, or its weights are incomplete.
    """
    open_config(folder)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        model, loaded = _AUTO_CLASSES[auto_class].from_pretrained(
            folder, local_files_only=True, dtype=dtype, output_loading_info=True
        )
    except Exception as error:  # a corrupt file makes the libraries raise anything
        raise UsageError(f"{folder} cannot be opened as a model: {_first_line(error)}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    missing = sorted(name for name in loaded["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise UsageError(
            f"{folder} holds no {auto_class.removeprefix('AutoModelFor')}: its weights lack {', '.join(missing[:3])}"
            f"{' and more' if len(missing) > 3 else ''}; fine-tune it first, or use another folder"
        )
    return model.eval().to(device)


def model_sha256(folder: Path) -> str:
    """SHA-256 over the files that determine a model's output: configuration, vocabulary, weights."""
    digest = hashlib.sha256()
    hashed_files = sorted(
        [*folder.glob("*.json"), *folder.glob("vocab.*"), *folder.glob("*.model"), *folder.glob(_WEIGHTS)]
    )
    for path in hashed_files:
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            while block := file.read(_READ_BYTES):
                digest.update(block)
    return digest.hexdigest()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
