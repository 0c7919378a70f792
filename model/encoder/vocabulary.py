"""The WordPiece vocabulary of the encoder, trained on the texts that it will read."""

from collections.abc import Iterable
from typing import Final

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import WordPiece

from model.encoder.tokens import CLS, SEP, SPECIAL, UNKNOWN

SIZE: Final = 8_000
"""Tokens at most; few texts give fewer."""

_ALPHABET: Final = 500
"""Characters that are known as such; rarer ones (of other scripts, emoji) make their word unknown."""


def train_vocabulary(texts: Iterable[str], *, size: int = SIZE) -> Tokenizer:
    """A WordPiece tokenizer (Schuster and Nakajima 2012, as in BERT), lower case, accents stripped.

    Words are parted where letters meet digits, too: `16gb` and `16 gb` are the same. The same texts in the same
    order give the same vocabulary.
    """
    tokenizer = Tokenizer(WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.BertNormalizer(clean_text=True, strip_accents=True, lowercase=True)]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Digits(individual_digits=False)]
    )
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, min_frequency=2, special_tokens=list(SPECIAL), limit_alphabet=_ALPHABET, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    cls, sep = tokenizer.token_to_id(CLS), tokenizer.token_to_id(SEP)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(CLS, cls), (SEP, sep)],
    )
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer
