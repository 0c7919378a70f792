"""An encoder in a Hugging Face folder, with its heads, graded pairs, and a header with the digests of all files."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from prectr.model.layers.memory import read_file
from prectr.model.text.encoder.graded import GradedPair, pack_graded, read_graded
from prectr.model.text.encoder.network import RelevanceEncoder
from prectr.model.text.encoder.network_config import MAX_POSITIONS, MIN_TOKENS, read_config, require_weights
from prectr.model.text.encoder.tokens import CLS, MASK, PAD, SEP, UNK, PairTokenizer
from prectr.state.errors import CheckpointError, InputError

__all__ = ["EncoderArtifact", "GradedPair", "load_encoder", "read_header", "save_encoder", "shipped_folder"]

FORMAT: Final = 1
HEADER: Final = "relevance.json"
CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"
HEADS: Final = "relevance.safetensors"
TOKENIZER: Final = "tokenizer.json"
TOKENIZER_CONFIG: Final = "tokenizer_config.json"
PAIRS: Final = "pairs.jsonl.gz"
MODEL_CARD: Final = "README.md"

_IDENTITY_FILES: Final = (WEIGHTS, HEADS, TOKENIZER)
"""The files that determine the encoder's output."""

_HINT: Final = "use another encoder folder, or pre-train the encoder again"


_DEFAULT_CARD: Final = """# A relevance encoder
Made by `prectr pretrain`; relevance.json has its provenance. Load the folder with `AutoModel` and `AutoTokenizer` of
transformers, or with levels and vectors by `prectr.model.text.encoder.artifact.load_encoder`.
"""


class ArtifactHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The header of an encoder folder; readable without torch."""

    format: int
    max_tokens: Annotated[int, msgspec.Meta(ge=MIN_TOKENS, le=MAX_POSITIONS)]
    sha256: dict[str, str]
    """SHA-256 of each other file of the encoder, by name."""
    provenance: dict[str, Any]
    """Teacher, data, seeds, versions, losses; free in form."""


@dataclass(frozen=True, slots=True)
class EncoderArtifact:
    """A loaded encoder.

    network: in evaluation mode, float32, on the CPU. pairs: the graded pairs of fine-tuning, possibly none.
    sha256: over weights and vocabulary; identifies the encoder.
    """

    network: RelevanceEncoder
    tokenizer: PairTokenizer
    pairs: tuple[GradedPair, ...]
    sha256: str
    header: ArtifactHeader


def shipped_folder() -> Path:
    """The folder of the encoder that ships with the package."""
    return Path(str(files("prectr.model.text.encoder") / "shipped"))


def save_encoder(
    folder: Path,
    network: RelevanceEncoder,
    tokenizer: PairTokenizer,
    *,
    pairs: Sequence[GradedPair] = (),
    provenance: Mapping[str, Any] | None = None,
    card: str = "",
    half: bool = False,
) -> str:
    """Write an encoder into a folder, which is created if needed, and return the encoder's SHA-256.

    Args:
        folder: the destination.
        network: the encoder.
        tokenizer: its tokenizer.
        pairs: the graded pairs of fine-tuning.
        provenance: for the header.
        card: the model card, README.md.
        half: store the weights as float16, half the size; they are loaded as float32.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state_dict = {name: _to_storage_dtype(tensor, half) for name, tensor in network.state_dict().items()}
    bert = {name.removeprefix("bert."): tensor for name, tensor in state_dict.items() if name.startswith("bert.")}
    heads = {name: tensor for name, tensor in state_dict.items() if not name.startswith("bert.")}
    with _no_progress_bar():
        network.bert.save_pretrained(folder, state_dict=bert)
        network.bert.config.save_pretrained(folder)
        _to_transformers(tokenizer).save_pretrained(folder)
    (folder / HEADS).write_bytes(save_tensors(heads))
    (folder / PAIRS).write_bytes(pack_graded(pairs))
    (folder / MODEL_CARD).write_text(card or _DEFAULT_CARD, encoding="utf-8")
    hashed_files = (CONFIG, WEIGHTS, HEADS, TOKENIZER, TOKENIZER_CONFIG, PAIRS)
    header = ArtifactHeader(
        format=FORMAT,
        max_tokens=tokenizer.max_tokens,
        sha256={name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in hashed_files},
        provenance=dict(provenance or {}),
    )
    (folder / HEADER).write_bytes(msgspec.json.format(msgspec.json.encode(header), indent=2) + b"\n")
    return _artifact_sha256(header)


def load_encoder(folder: Path | None = None) -> EncoderArtifact:
    """Load what `save_encoder` wrote; None: the encoder that ships with the package.

    Raises:
        CheckpointError: the folder or a file is missing or corrupt, the format is unknown, or the files do not match.
    """
    folder = shipped_folder() if folder is None else folder
    header = read_header(folder)
    content = {name: _read_verified(folder, name, header) for name in (CONFIG, WEIGHTS, HEADS, TOKENIZER)}
    try:
        tokenizer = PairTokenizer(Tokenizer.from_str(content[TOKENIZER].decode()), max_tokens=header.max_tokens)
    except Exception as error:  # the library raises bare exceptions
        raise CheckpointError(f"{folder / TOKENIZER} is not a tokenizer: {error}; {_HINT}") from error
    largest = max(tokenizer.tokenizer.get_vocab().values())
    if largest >= tokenizer.vocab_size:
        raise CheckpointError(
            f"{folder / TOKENIZER} has a token with the id {largest}, and {tokenizer.vocab_size} tokens; {_HINT}"
        )
    network = _load_network(folder, content, tokenizer)
    return EncoderArtifact(network, tokenizer, _load_pairs(folder, header), _artifact_sha256(header), header)


def read_header(folder: Path) -> ArtifactHeader:
    """Read the header of an encoder folder; CheckpointError: it has none, or one of another format."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder: use one made by pretraining")
    path = folder / HEADER
    if not path.is_file():
        raise CheckpointError(f"{folder} is not an encoder folder, it has no {HEADER}; {_HINT}")
    try:
        header = msgspec.json.decode(read_file(path), type=ArtifactHeader)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; {_HINT}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise CheckpointError(f"{path} is corrupt: {error}; {_HINT}") from error
    if header.format != FORMAT:
        raise CheckpointError(
            f"{path} has format {header.format}, this program reads format {FORMAT}: use the release that wrote it"
        )
    return header


def _load_network(folder: Path, content: Mapping[str, bytes], tokenizer: PairTokenizer) -> RelevanceEncoder:
    config = read_config(folder / CONFIG, content[CONFIG], tokenizer.max_tokens)
    try:
        bert, heads = load_tensors(content[WEIGHTS]), load_tensors(content[HEADS])
    except (ValueError, TypeError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{folder} cannot be read: {error}; {_HINT}") from error
    rows = bert["embeddings.word_embeddings.weight"].shape[0] if "embeddings.word_embeddings.weight" in bert else 0
    if rows != tokenizer.vocab_size:
        raise CheckpointError(
            f"{folder} mixes two encoders: {WEIGHTS} has {rows} word embeddings, {TOKENIZER} {tokenizer.vocab_size} "
            f"tokens; {_HINT}"
        )
    tensors = {f"bert.{name}": tensor for name, tensor in bert.items()} | heads
    try:
        # Before the network is made, which takes what memory its configuration asks for.
        require_weights(tensors, config)
    except ValueError as error:
        raise CheckpointError(f"{folder} has weights that do not match its {CONFIG}: {error}; {_HINT}") from error
    with torch.random.fork_rng(devices=[]):
        network = RelevanceEncoder(config)
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return network.eval()


def _load_pairs(folder: Path, header: ArtifactHeader) -> tuple[GradedPair, ...]:
    packed = _read_verified(folder, PAIRS, header)
    if packed == pack_graded(()):
        return ()
    try:
        return tuple(read_graded(folder / PAIRS))
    except InputError as error:
        raise CheckpointError(f"{error}; {_HINT}") from error


def _read_verified(folder: Path, name: str, header: ArtifactHeader) -> bytes:
    try:
        content = read_file(folder / name)
    except OSError as error:
        raise CheckpointError(f"{folder / name} cannot be read: {error.strerror}; {_HINT}") from error
    if hashlib.sha256(content).hexdigest() != header.sha256.get(name):
        raise CheckpointError(f"{folder / name} is corrupt: its SHA-256 is not the one in {HEADER}; {_HINT}")
    return content


def _artifact_sha256(header: ArtifactHeader) -> str:
    digest = hashlib.sha256()
    for name in _IDENTITY_FILES:
        digest.update(bytes.fromhex(header.sha256[name]))
    return digest.hexdigest()


def _to_storage_dtype(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.half() if half and tensor.dtype == torch.float32 else tensor


def _to_transformers(tokenizer: PairTokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer.from_str(tokenizer.tokenizer.to_str()),
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        model_max_length=tokenizer.max_tokens,
        pad_token=PAD,
        unk_token=UNK,
        cls_token=CLS,
        sep_token=SEP,
        mask_token=MASK,
    )


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Disable the progress bars of transformers: a folder of this size is written at once."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]
