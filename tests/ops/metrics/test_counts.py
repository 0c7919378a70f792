"""What a task and its store count for whoever watches, against counts made one by one."""

from functools import reduce
from pathlib import Path

import msgspec
import pytest

from prectr.state.aggregates import NO_COUNTS, add_counts, count_levels
from prectr.state.store import Store, StoreOptions
from prectr.stream.aggregate.operator import count_levels_of_pages
from prectr.stream.kafka.tasks.task_metrics import BUCKET_BOUNDS, DurationHistogram
from tests.kit.models.examples import random_examples


def test_levels_of_many_pages_are_the_sum_of_those_of_each() -> None:
    examples = random_examples(200, seed=3)
    one_by_one = (count_levels(example.levels, example.labels) for example in examples)
    assert count_levels_of_pages(examples) == reduce(add_counts, one_by_one)
    assert sum(count_levels_of_pages(examples)[:4]) == sum(len(example.labels) for example in examples)
    assert sum(count_levels_of_pages(examples)[4:]) == sum(sum(example.labels) for example in examples) > 0


def test_without_pages_all_level_counts_are_zero() -> None:
    assert count_levels_of_pages([]) == NO_COUNTS
    only = msgspec.structs.replace(random_examples(1, seed=1)[0], levels=b"\x04\x02", labels=b"\x01\x00")
    assert count_levels_of_pages([only]) == (0, 1, 0, 1, 0, 0, 0, 1)


def test_a_read_histogram_does_not_change() -> None:
    watch = DurationHistogram()
    before = watch.buckets()
    watch.observe(BUCKET_BOUNDS[0] / 2)
    assert before.counts == (0,) * (len(BUCKET_BOUNDS) + 1)
    assert watch.buckets().counts == (1, *(0,) * len(BUCKET_BOUNDS))


def test_a_store_reports_keys_files_and_cache_hits(tmp_path: Path) -> None:
    options = StoreOptions(write_buffer=1 << 20, statistics=True)
    store = Store(tmp_path / "store", options)
    keys = [f"{number:05d}".encode() for number in range(5_000)]
    store.write(dict.fromkeys(keys, b"x" * 100))
    assert store.stats().keys == pytest.approx(5_000, rel=0.1)
    assert store.stats().size == 0, "all of it is in the write buffer"
    store.close()
    # Opened again, all of it is in files, and none of it in the cache.
    store = Store(tmp_path / "store", options)
    first = store.stats()
    assert first.size == sum(file.stat().st_size for file in (tmp_path / "store").glob("*.sst")) > 0
    store.get_many(keys)
    read = store.stats()
    assert read.cache_misses > first.cache_misses
    store.get_many(keys)
    again = store.stats()
    assert again.cache_hits > read.cache_hits
    assert again.cache_misses == read.cache_misses
    assert again.memory >= 5_000 * 100, "what was read is in the cache"
    assert again.stall_seconds == 0
    store.close()


def test_a_store_without_statistics_reports_no_hits(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.write({b"a": b"1"})
    store.get_many([b"a"])
    figures = store.stats()
    assert (figures.keys, figures.cache_hits, figures.cache_misses, figures.stall_seconds) == (1, 0, 0, 0.0)
    store.close()
