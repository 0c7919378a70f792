"""A simulated shop with known click probabilities, and the log of its visitors."""

from prectr.stream.simulator.catalogue import Catalogue
from prectr.stream.simulator.generate import SimulatedLog, simulate
from prectr.stream.simulator.world import World, WorldSettings, draw_pages, make_catalogue, make_world

__all__ = [
    "Catalogue",
    "SimulatedLog",
    "World",
    "WorldSettings",
    "draw_pages",
    "make_catalogue",
    "make_world",
    "simulate",
]
