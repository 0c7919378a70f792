"""Models of transformers in local folders: opened offline, with one-line errors.

A folder may be anybody's. Its code is never run and never asked about, weights are read as safetensors only, and a
model that would not fit into memory is refused before it is made.
"""

import hashlib
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from prectr.model.layers.memory import require_memory
from prectr.state.errors import UsageError

_AUTO_CLASSES: Final = {
    "AutoModel": AutoModel,
    "AutoModelForSequenceClassification": AutoModelForSequenceClassification,
    "AutoModelForCausalLM": AutoModelForCausalLM,
}

_WEIGHTS: Final = "*.safetensors"
_READ_BYTES: Final = 1 << 22
_MAX_LAYERS: Final = 1024
_SAFELY: Final = MappingProxyType({"local_files_only": True, "trust_remote_code": False})
"""Arguments of every `from_pretrained`: without the second, transformers asks on the terminal whether to run code."""
_ERRORS: Final = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What the library raises about a folder that is not right."""


def open_config(folder: Path) -> Any:
    """Open the configuration of a model; UsageError: the folder holds no model."""
    if not (folder / "config.json").is_file():
        problem = "has no config.json" if folder.is_dir() else "is not a folder"
        raise UsageError(f"{folder} {problem}: use the folder of a transformers model (config.json, *.safetensors)")
    if next(folder.glob(_WEIGHTS), None) is None:
        raise UsageError(f"{folder} has no weights: it must hold *.safetensors beside config.json")
    try:
        config = AutoConfig.from_pretrained(folder, **_SAFELY)
    except _ERRORS as error:
        raise UsageError(f"{folder} is not a model that transformers knows: {_first_line(error)}") from error
    layers = getattr(config, "num_hidden_layers", None)
    if isinstance(layers, int) and layers > _MAX_LAYERS:
        raise UsageError(f"{folder / 'config.json'} has {layers:,} layers: use a model of at most {_MAX_LAYERS}")
    return config


def open_tokenizer(folder: Path) -> Any:
    """Open the tokenizer of a model; UsageError: there is none."""
    open_config(folder)
    try:
        return AutoTokenizer.from_pretrained(folder, **_SAFELY)
    except _ERRORS as error:
        raise UsageError(f"{folder} has no tokenizer that transformers can open: {_first_line(error)}") from error


def open_model(folder: Path, auto_class: str, device: torch.device, dtype: torch.dtype = torch.float32) -> Any:
    """Open a model in evaluation mode on a device; auto_class: the name of an `Auto…` class of transformers.

    Raises:
        UsageError: the folder holds no such model, its weights are incomplete, or it does not fit into memory.
    """
    config = open_config(folder)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        _require_memory(folder, _AUTO_CLASSES[auto_class], config, dtype)
        model, loaded = _AUTO_CLASSES[auto_class].from_pretrained(
            folder, dtype=dtype, output_loading_info=True, use_safetensors=True, **_SAFELY
        )
    except UsageError:
        raise
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


def _require_memory(folder: Path, auto_class: Any, config: Any, dtype: torch.dtype) -> None:
    """Raise UsageError if the model that the configuration describes does not fit into memory."""
    with torch.device("meta"):
        described = auto_class.from_config(config, trust_remote_code=False)
    size = sum(parameter.numel() for parameter in described.parameters()) * dtype.itemsize
    # Models are made on the CPU, then moved.
    require_memory(size, torch.device("cpu"), f"the model that {folder / 'config.json'} describes")


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
