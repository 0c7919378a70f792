"""A simulated shop whose true click probabilities are known, and the log that its visitors leave."""

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
