"""The configuration of an encoder folder's network, held to bounds, and its weights compared with it.

A folder may be anybody's: only the fields below are read, and nothing is allocated before all of them are checked.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
import torch
from torch import Tensor
from transformers import BertConfig

from prectr.model.layers.finiteness import first_not_finite
from prectr.model.text.encoder.network import ATTENTION, HEADS, HIDDEN_SIZE, TOKEN_TYPES, RelevanceEncoder
from prectr.state.errors import CheckpointError

MIN_TOKENS: Final = 4
"""`[CLS]`, two `[SEP]` and a token of text."""
MAX_POSITIONS: Final = 1 << 14
_DTYPES: Final = (torch.float16, torch.float32)
_HINT: Final = "use another encoder folder, or pre-train the encoder again"

Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]


class _NetworkConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of `config.json`; the rest of it describes the file or is for other networks."""

    vocab_size: Annotated[int, msgspec.Meta(ge=1, le=1 << 24)]
    hidden_size: Annotated[int, msgspec.Meta(ge=HIDDEN_SIZE, le=HIDDEN_SIZE)]
    num_hidden_layers: Annotated[int, msgspec.Meta(ge=1, le=64)]
    num_attention_heads: Annotated[int, msgspec.Meta(ge=HEADS, le=HEADS)]
    intermediate_size: Annotated[int, msgspec.Meta(ge=1, le=1 << 16)]
    max_position_embeddings: Annotated[int, msgspec.Meta(ge=MIN_TOKENS, le=MAX_POSITIONS)]
    type_vocab_size: Annotated[int, msgspec.Meta(ge=TOKEN_TYPES, le=TOKEN_TYPES)]
    hidden_act: Literal["gelu", "gelu_new", "relu", "silu"] = "gelu"
    hidden_dropout_prob: Share = 0.0
    attention_probs_dropout_prob: Share = 0.0
    layer_norm_eps: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1e-12
    initializer_range: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.02
    pad_token_id: Annotated[int, msgspec.Meta(ge=0)] = 0


def read_config(path: Path, content: bytes, max_tokens: int) -> BertConfig:
    """Decode `config.json`.

    Args:
        path: of the file, for errors.
        content: of the file.
        max_tokens: that the network will be given.

    Raises:
        CheckpointError: it is not the configuration of an encoder, or a number is out of its range.
    """
    try:
        fields = msgspec.json.decode(content, type=_NetworkConfig)
    except (msgspec.DecodeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not the configuration of an encoder: {error}; {_HINT}") from error
    if max_tokens > fields.max_position_embeddings or fields.pad_token_id >= fields.vocab_size:
        raise CheckpointError(
            f"{path} has {fields.max_position_embeddings} positions for pairs of {max_tokens} tokens, and "
            f"{fields.vocab_size} tokens, of which number {fields.pad_token_id} is padding; {_HINT}"
        )
    config = BertConfig(**msgspec.structs.asdict(fields), dtype="float32")
    config._attn_implementation = ATTENTION
    return config


def require_weights(tensors: Mapping[str, Tensor], config: BertConfig) -> None:
    """Raise ValueError unless the tensors are a network's: names, shapes, float16 or float32, and finite."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        wanted = RelevanceEncoder(config).state_dict()
    different = sorted(wanted.keys() ^ tensors.keys())
    if different:
        raise ValueError(f"{different[0]} is {'missing' if different[0] in wanted else 'unknown'}")
    for name, tensor in tensors.items():
        shape = list(wanted[name].shape)
        if list(tensor.shape) != shape or tensor.dtype not in _DTYPES:
            found = f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
            raise ValueError(f"{name} is {found}, not float32{shape}")
    found_number = first_not_finite(tensors)
    if found_number is not None:
        raise ValueError(f"{found_number[0]} holds {found_number[1]}")
