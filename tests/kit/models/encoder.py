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
from prectr.model.text.encoder.tokens import SPECIAL_TOKENS, UNK, PairTokenizer


@cache
def tiny_encoder(seed: int = 0) -> Path:
    """Its folder; it knows the words of `tests.kit.models.examples`, and a few graded pairs."""
    folder = Path(mkdtemp(prefix="prectr-encoder-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    words = [*SPECIAL_TOKENS, "title", "query", *(str(number) for number in range(40))]
    tokenizer = Tokenizer(WordPiece({word: place for place, word in enumerate(words)}, unk_token=UNK))
    tokenizer.pre_tokenizer = BertPreTokenizer()
    pairs = [
        GradedPair(f"query {query_number}", f"title {index}", 1 + (index + query_number) % 4)
        for query_number in range(8)
        for index in range(40)
    ]
    reader = PairTokenizer(tokenizer)
    save_encoder(folder, make_encoder(reader, seed, layers=1), reader, pairs=pairs)
    return folder
