"""An untrained text encoder of one layer in a folder, made once a process."""

import atexit
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import BertPreTokenizer

from prectr.model.text.encoder.artifact import save_encoder
from prectr.model.text.encoder.graded import GradedPair
from prectr.model.text.encoder.network import make_encoder
from prectr.model.text.encoder.tokens import SPECIAL, UNKNOWN, PairTokenizer


@cache
def tiny_encoder(seed: int = 0) -> Path:
    """Its folder; it knows the words of `tests.kit.models.examples`, and a few graded pairs."""
    folder = Path(mkdtemp(prefix="prectr-encoder-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    words = [*SPECIAL, "title", "query", *(str(number) for number in range(40))]
    tokenizer = Tokenizer(WordPiece({word: place for place, word in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = BertPreTokenizer()
    pairs = [
        GradedPair(f"query {at}", f"title {place}", 1 + (place + at) % 4) for at in range(8) for place in range(40)
    ]
    reader = PairTokenizer(tokenizer)
    save_encoder(folder, make_encoder(reader, seed, layers=1), reader, pairs=pairs)
    return folder
