"""The words of the synthetic catalogue; the same for every seed, so that a text model can be reused.

Each word is listed with its synonyms; the first form is its name.
"""

from typing import Final

Forms = tuple[str, ...]

DEPARTMENTS: Final[dict[str, tuple[Forms, ...]]] = {
    "computers": (
        ("laptop", "notebook", "portable computer"),
        ("monitor", "display", "computer screen"),
        ("keyboard", "keypad", "typing board"),
        ("printer", "printing machine"),
        ("tablet", "slate computer", "pad"),
    ),
    "sound": (
        ("headphones", "headset", "earphones"),
        ("speaker", "loudspeaker", "sound box"),
        ("microphone", "mic"),
        ("turntable", "record player"),
        ("radio", "tuner", "receiver"),
    ),
    "kitchen": (
        ("kettle", "water boiler"),
        ("blender", "smoothie maker", "mixer"),
        ("frying pan", "skillet"),
        ("coffee maker", "coffee machine", "espresso machine"),
        ("toaster", "bread toaster"),
    ),
    "home": (
        ("lamp", "light", "luminaire"),
        ("chair", "seat"),
        ("desk", "writing table"),
        ("rug", "carpet"),
        ("shelf", "bookcase", "rack"),
    ),
    "clothing": (
        ("jacket", "coat", "parka"),
        ("shirt", "top", "blouse"),
        ("trousers", "pants", "slacks"),
        ("sweater", "jumper", "pullover"),
        ("dress", "gown"),
    ),
    "shoes and bags": (
        ("sneakers", "trainers", "running shoes"),
        ("boots", "hiking shoes"),
        ("sandals", "flip flops"),
        ("backpack", "rucksack"),
        ("handbag", "purse", "tote"),
    ),
    "sport": (
        ("tent", "shelter"),
        ("sleeping bag", "quilt bag"),
        ("bicycle", "bike"),
        ("yoga mat", "exercise mat"),
        ("dumbbell", "hand weight"),
    ),
    "garden": (
        ("hose", "water pipe"),
        ("lawn mower", "grass cutter"),
        ("planter", "flower pot"),
        ("drill", "power drill", "screwdriver"),
        ("grill", "barbecue", "bbq"),
    ),
}
"""Eight departments of five categories; categories of the same department are siblings."""

COLOURS: Final[tuple[Forms, ...]] = (
    ("black", "jet", "onyx"),
    ("white", "ivory"),
    ("grey", "gray", "silver"),
    ("blue", "navy", "azure"),
    ("red", "crimson"),
    ("green", "olive"),
)

SIZES: Final[tuple[Forms, ...]] = (
    ("medium", "standard size"),
    ("small", "compact", "mini"),
    ("large", "big"),
    ("extra large", "xl", "oversized"),
)

MATERIALS: Final[tuple[Forms, ...]] = (
    ("plastic", "polymer"),
    ("steel", "metal", "stainless"),
    ("wood", "wooden", "oak"),
    ("leather", "hide"),
    ("cotton", "canvas", "fabric"),
)

FEATURES: Final[tuple[Forms, ...]] = (
    ("wireless", "cordless"),
    ("waterproof", "water resistant"),
    ("foldable", "folding", "collapsible"),
    ("lightweight", "ultralight"),
    ("rechargeable", "battery powered"),
    ("adjustable", "flexible"),
    ("silent", "quiet", "noiseless"),
    ("insulated", "thermal"),
)

FILLERS: Final[tuple[str, ...]] = (
    "new",
    "premium",
    "for home and office",
    "with gift box",
    "2026 model",
    "original",
    "bestseller",
    "2 year warranty",
    "eco line",
    "special offer",
)

SYLLABLES: Final[tuple[tuple[str, ...], tuple[str, ...]]] = (
    ("al", "be", "cor", "del", "em", "fen", "gar", "hol", "in", "jo", "kel", "lum", "mar", "nor", "or", "pel"),
    ("ba", "dex", "fin", "ko", "lia", "mont", "nix", "ra", "ston", "ta", "vo", "wick", "za"),
)
"""A brand name is one of the first syllables followed by one of the second."""
