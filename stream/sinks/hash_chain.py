"""A hash chain over a stream of records: equal digests mean equal streams, bit for bit."""

import hashlib


class HashChain:
    """d(i) = SHA-256(d(i-1) followed by record i), where d(0) is 32 zero bytes; `length` is the number of records."""

    __slots__ = ("digest", "length")

    def __init__(self, digest: bytes = bytes(32), length: int = 0) -> None:
        self.digest = digest
        self.length = length

    def add(self, record: bytes) -> None:
        """Add the canonical bytes of the next record."""
        hasher = hashlib.sha256(self.digest)
        hasher.update(record)
        self.digest = hasher.digest()
        self.length += 1

    def hex(self) -> str:
        """Return the digest so far in hexadecimal."""
        return self.digest.hex()
