"""The Chorus catalogue: real products and queries with human grades (sources: data/chorus/NOTICE)."""

import gzip
from importlib.resources import files
from typing import Final

import msgspec
import numpy as np

from prectr.stream.simulator.catalogue import Catalogue, draw_exposable, zipf_popularity

MIN_CANDIDATES: Final = 10
"""Queries with fewer graded products than a page has positions are left out (13 of 135)."""

CATEGORY_WORDS: Final = (
    "screen protector",
    "privacy filter",
    "mobile phone case",
    "camera case",
    "notebook case",
    "tablet case",
    "case",
    "backpack",
    "bag",
    "toner",
    "ink cartridge",
    "paper",
    "film",
    "label",
    "toothbrush",
    "smartwatch",
    "memory card",
    "memory module",
    "card reader",
    "headset",
    "headphone",
    "microphone",
    "speaker",
    "radio",
    "remote control",
    "desk mount",
    "wall mount",
    "mount",
    "stand",
    "docking station",
    "port replicator",
    "charger",
    "power adapter",
    "power supply",
    "battery",
    "cable",
    "cord",
    "hub",
    "network switch",
    "switch",
    "optical disc drive",
    "solid state drive",
    "hard drive",
    "hdd",
    "ssd",
    "usb flash drive",
    "mouse pad",
    "mouse",
    "keyboard",
    "calculator",
    "scanner",
    "projector lamp",
    "projector",
    "lamp",
    "bulb",
    "camera lens",
    "lens",
    "webcam",
    "camera",
    "dvd player",
    "cd player",
    "player",
    "printer",
    "deskjet",
    "laserjet",
    "monitor",
    "graphics card",
    "motherboard",
    "cooling",
    "fan",
    "coffee",
    "handheld mobile computer",
    "tablet",
    "notebook",
    "laptop",
    "workstation",
    "pc",
    "smartphone",
    "tv",
    "video game",
    "game console",
    "lock",
    "doll",
    "puzzle",
    "book",
    "adapter",
    "drive",
    "software",
)
"""A product's category is the first of these whose words its title contains, else `other`."""


class GradedProduct(msgspec.Struct, frozen=True):
    """A product graded for a query: grade 0 to 3, price in cents."""

    query: str
    doc: str
    grade: int
    title: str
    brand: str
    price: int


def graded_products() -> list[GradedProduct]:
    """Read the 3,668 graded pairs that ship with the package."""
    compressed = (files("prectr.stream.simulator") / "data" / "chorus" / "pairs.jsonl.gz").read_bytes()
    decode = msgspec.json.Decoder(GradedProduct).decode
    return [decode(line) for line in gzip.decompress(compressed).splitlines()]


def chorus_category(title: str) -> str:
    """Return the category of a product by its title; a plural counts as the word."""
    words = f" {' '.join(title.lower().replace('/', ' ').replace(',', ' ').split())} ".replace("batteries", "battery")
    for category in CATEGORY_WORDS:
        if f" {category} " in words or f" {category}s " in words:
            return category
    return "other"


def chorus_catalogue(seed: int) -> Catalogue:
    """Build the Chorus catalogue: grades 0 to 3 as levels 1 to 4, a query's graded products as its candidates.

    Products, queries and grades are the same for every seed; query popularity and the candidates that are never exposed
    are drawn.
    """
    rng = np.random.default_rng([seed, 1])
    by_query: dict[str, list[GradedProduct]] = {}
    for pair in graded_products():
        by_query.setdefault(pair.query, []).append(pair)
    kept = {query: pairs for query, pairs in by_query.items() if len(pairs) >= MIN_CANDIDATES}
    products = {pair.doc: pair for pairs in kept.values() for pair in pairs}
    product_index = {doc: i for i, doc in enumerate(products)}
    shape = (len(kept), max(map(len, kept.values())))
    candidates = np.full(shape, -1, dtype=np.int32)
    levels = np.zeros(shape, dtype=np.uint8)
    for q, pairs in enumerate(kept.values()):
        candidates[q, : len(pairs)] = [product_index[pair.doc] for pair in pairs]
        levels[q, : len(pairs)] = [pair.grade + 1 for pair in pairs]
    return Catalogue(
        name="chorus",
        queries=tuple(kept),
        popularity=zipf_popularity(len(kept), rng),
        candidates=candidates,
        levels=levels,
        exposable=draw_exposable(levels, rng),
        item_ids=tuple(products),
        titles=tuple(pair.title for pair in products.values()),
        categories=tuple(chorus_category(pair.title) for pair in products.values()),
        brands=tuple(pair.brand for pair in products.values()),
        prices=np.array([pair.price / 100 for pair in products.values()]),
    )
