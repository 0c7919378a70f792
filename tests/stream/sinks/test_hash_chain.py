"""The digest of a stream of records."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from prectr.stream.sinks.hash_chain import HashChain


@given(st.lists(st.binary(max_size=10), max_size=10))
def test_each_link_is_the_sha256_of_the_one_before_and_the_record(records: list[bytes]) -> None:
    chain, digest = HashChain(), bytes(32)
    chain.add(records)
    for record in records:
        digest = hashlib.sha256(digest + record).digest()
    assert chain.hex() == digest.hex()
    assert chain.length == len(records)


@given(st.lists(st.binary(max_size=5), min_size=1, max_size=8), st.data())
def test_a_chain_resumes_from_its_digest(records: list[bytes], data: st.DataObject) -> None:
    whole, first = HashChain(), HashChain()
    at = data.draw(st.integers(0, len(records)))
    whole.add(records)
    first.add(records[:at])
    second = HashChain(bytes.fromhex(first.hex()), first.length)
    second.add(records[at:])
    assert (second.hex(), second.length) == (whole.hex(), whole.length)


def test_where_one_record_ends_and_the_next_begins_matters() -> None:
    one, other = HashChain(), HashChain()
    one.add((b"ab", b"c"))
    other.add((b"a", b"bc"))
    assert one.hex() != other.hex()
