"""What a task and its store count for whoever watches, against counts made one by one."""

from functools import reduce
from pathlib import Path

import msgspec
import pytest

from prectr.state.aggregates import NO_COUNTS, add_counts, count_levels
from prectr.state.store import Store, StoreOptions
from prectr.stream.kafka.tasks.task_metrics import BOUNDS, Stopwatch, levels_of
from tests.kit.models.examples import random_examples


def test_levels_of_many_pages_are_the_sum_of_those_of_each() -> None:
    examples = random_examples(200, seed=3)
    one_by_one = (count_levels(example.levels, example.labels) for example in examples)
    assert levels_of(examples) == reduce(add_counts, one_by_one)
    assert sum(levels_of(examples)[:4]) == sum(len(example.labels) for example in examples)
    assert sum(levels_of(examples)[4:]) == sum(sum(example.labels) for example in examples) > 0


def test_of_no_pages_there_is_nothing_and_every_level_has_its_place() -> None:
    assert levels_of([]) == NO_COUNTS
    only = msgspec.structs.replace(random_examples(1, seed=1)[0], levels=b"\x04\x02", labels=b"\x01\x00")
    assert levels_of([only]) == (0, 1, 0, 1, 0, 0, 0, 1)


def test_what_has_been_read_from_a_stopwatch_does_not_change() -> None:
    watch = Stopwatch()
    before = watch.durations()
    watch.add(BOUNDS[0] / 2)
    assert before.counts == (0,) * (len(BOUNDS) + 1)
    assert watch.durations().counts == (1, *(0,) * len(BOUNDS))


def test_a_store_tells_of_keys_files_and_what_its_cache_had(tmp_path: Path) -> None:
    options = StoreOptions(write_buffer=1 << 20, counted=True)
    store = Store(tmp_path / "store", options)
    keys = [f"{number:05d}".encode() for number in range(5_000)]
    store.write(dict.fromkeys(keys, b"x" * 100))
    assert store.figures().keys == pytest.approx(5_000, rel=0.1)
    assert store.figures().size == 0, "all of it is in the write buffer"
    store.close()
    # Opened again, all of it is in files, and none of it in the cache.
    store = Store(tmp_path / "store", options)
    first = store.figures()
    assert first.size == sum(file.stat().st_size for file in (tmp_path / "store").glob("*.sst")) > 0
    store.get_many(keys)
    read = store.figures()
    assert read.cache_misses > first.cache_misses
    store.get_many(keys)
    again = store.figures()
    assert again.cache_hits > read.cache_hits
    assert again.cache_misses == read.cache_misses
    assert again.memory >= 5_000 * 100, "what was read is in the cache"
    assert again.stalled == 0
    store.close()


def test_a_store_that_is_not_to_count_says_no_hits(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.write({b"a": b"1"})
    store.get_many([b"a"])
    figures = store.figures()
    assert (figures.keys, figures.cache_hits, figures.cache_misses, figures.stalled) == (1, 0, 0, 0.0)
    store.close()
