"""The WordPiece vocabulary of the encoder, trained on its own texts."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import WordPiece

from prectr.model.config import VOCAB_SIZE
from prectr.model.text.encoder.tokens import CLS, SEP, SPECIAL_TOKENS, UNK

_ALPHABET_SIZE: Final = 300
"""Known characters; words with a rarer one (of other scripts, emoji) become unknown."""

_SUBWORD_PREFIX: Final = "##"
"""Prefix of tokens inside a word."""


def train_vocabulary(texts: Iterable[str], *, size: int = VOCAB_SIZE) -> Tokenizer:
    """Train a WordPiece tokenizer (Schuster and Nakajima 2012, as in BERT), lower case, accents stripped.

    Words are also split between letters and digits: `16gb` equals `16 gb`. Equal texts in equal order give equal
    vocabularies.
    """
    texts = list(texts)
    tokenizer = _tokenizer(WordPiece(unk_token=UNK))
    letters = _alphabet(tokenizer, texts)
    # The library numbers letters in the order of a hash table that differs between runs, and breaks ties between
    # merges by these numbers. As special tokens the letters get fixed numbers; the returned tokenizer is rebuilt from
    # the vocabulary alone, where they are ordinary tokens.
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=[*SPECIAL_TOKENS, *letters],
        initial_alphabet=sorted({letter[-1] for letter in letters}),
        limit_alphabet=len({letter[-1] for letter in letters}),
        show_progress=False,
        continuing_subword_prefix=_SUBWORD_PREFIX,
    )
    tokenizer.train_from_iterator(texts, trainer)
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    token_ids = {
        token: token_id for token_id, token in enumerate(sorted(vocabulary, key=lambda token: vocabulary[token]))
    }
    trained = _tokenizer(WordPiece(vocab=token_ids, unk_token=UNK, continuing_subword_prefix=_SUBWORD_PREFIX))
    trained.add_special_tokens(list(SPECIAL_TOKENS))
    trained.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(CLS, token_ids[CLS]), (SEP, token_ids[SEP])],
    )
    trained.decoder = decoders.WordPiece(prefix=_SUBWORD_PREFIX)
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


def _alphabet(tokenizer: Tokenizer, texts: list[str]) -> list[str]:
    """The most frequent characters, as initial and as inner ones of a word, in a fixed order."""
    initial: Counter[str] = Counter()
    inside: Counter[str] = Counter()
    for text in texts:
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text)):
            initial[word[0]] += 1
            inside.update(word[1:])
    both = initial + inside
    alphabet = sorted(both, key=lambda letter: (-both[letter], letter))[:_ALPHABET_SIZE]
    return sorted([*(c for c in alphabet if c in initial), *(_SUBWORD_PREFIX + c for c in alphabet if c in inside)])
