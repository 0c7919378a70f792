"""Teachers small enough for a test: a classifier and a language model of transformers with random weights."""

from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from prectr.model.text.encoder.tokens import CLS, MASK, PAD, SEP, UNK, Pair
from prectr.model.text.encoder.vocabulary import train_vocabulary

TITLES = ("red wool socks", "blue wool hat", "red cotton hat", "usb cable 2 m", "wool socks for home", "usb hub red")
QUERIES = ("wool hat", "usb", "red socks", "cable")
PAIRS: list[Pair] = [(query, title) for query in QUERIES for title in TITLES]


def save_classifier(folder: Path, *, outputs: int, seed: int = 3) -> Path:
    """A sequence classifier over pairs with so many outputs."""
    tokenizer = _save_tokenizer(folder)
    config = BertConfig(
        vocab_size=tokenizer,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=outputs,
        initializer_range=0.5,
    )
    torch.manual_seed(seed)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def save_language_model(folder: Path, *, seed: int = 3) -> Path:
    """A causal language model."""
    tokens = _save_tokenizer(folder)
    torch.manual_seed(seed)
    config = GPT2Config(vocab_size=tokens, n_embd=16, n_layer=1, n_head=2, n_positions=512, initializer_range=0.5)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def _save_tokenizer(folder: Path) -> int:
    texts = [*TITLES, *QUERIES, "relevant irrelevant 1 2 3 4 answer : ?"] * 2
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_vocabulary(texts, size=300),
        pad_token=PAD,
        unk_token=UNK,
        cls_token=CLS,
        sep_token=SEP,
        mask_token=MASK,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    tokenizer.save_pretrained(folder)
    return len(tokenizer)
