"""The WordPiece vocabulary of the encoder, trained on the texts that it will read."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import WordPiece

from prectr.model.text.encoder.tokens import CLS, SEP, SPECIAL, UNKNOWN

SIZE: Final = 8_000
"""Tokens at most; few texts give fewer."""

_ALPHABET: Final = 300
"""Characters that are known as such; rarer ones (of other scripts, emoji) make their word unknown."""

_INSIDE: Final = "##"
"""Before a token that goes on a word."""


def train_vocabulary(texts: Iterable[str], *, size: int = SIZE) -> Tokenizer:
    """A WordPiece tokenizer (Schuster and Nakajima 2012, as in BERT), lower case, accents stripped.

    Words are parted where letters meet digits, too: `16gb` and `16 gb` are the same. The same texts in the same
    order give the same vocabulary.
    """
    texts = list(texts)
    tokenizer = _tokenizer(WordPiece(unk_token=UNKNOWN))
    letters = _letters(tokenizer, texts)
    # The library numbers letters in the order of a hash table that differs from run to run, and breaks ties between
    # merges by these numbers. Named as special tokens, the letters have numbers of ours; the tokenizer that is
    # returned is made from the words alone, where they are nothing special.
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=[*SPECIAL, *letters],
        initial_alphabet=sorted({letter[-1] for letter in letters}),
        limit_alphabet=len({letter[-1] for letter in letters}),
        show_progress=False,
        continuing_subword_prefix=_INSIDE,
    )
    tokenizer.train_from_iterator(texts, trainer)
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    numbered = {token: place for place, token in enumerate(sorted(vocabulary, key=lambda token: vocabulary[token]))}
    trained = _tokenizer(WordPiece(vocab=numbered, unk_token=UNKNOWN, continuing_subword_prefix=_INSIDE))
    trained.add_special_tokens(list(SPECIAL))
    trained.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(CLS, numbered[CLS]), (SEP, numbered[SEP])],
    )
    trained.decoder = decoders.WordPiece(prefix=_INSIDE)
    return trained


def _tokenizer(model: WordPiece) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.BertNormalizer(clean_text=True, strip_accents=True, lowercase=True)]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Digits(individual_digits=False)]
    )
    return tokenizer


def _letters(tokenizer: Tokenizer, texts: list[str]) -> list[str]:
    """The commonest characters, as they begin a word and as they go on one, in a fixed order."""
    begin: Counter[str] = Counter()
    inside: Counter[str] = Counter()
    for text in texts:
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text)):
            begin[word[0]] += 1
            inside.update(word[1:])
    both = begin + inside
    kept = sorted(both, key=lambda letter: (-both[letter], letter))[:_ALPHABET]
    return sorted([*(c for c in kept if c in begin), *(_INSIDE + c for c in kept if c in inside)])
