"""A digest of everything that was put out, in order: equal chains mean equal streams, bit for bit."""

import hashlib


class HashChain:
    """d(i) = SHA-256(d(i-1) followed by record i); d(0) is 32 zero bytes. `length` records so far."""

    __slots__ = ("digest", "length")

    def __init__(self, digest: bytes = bytes(32), length: int = 0) -> None:
        self.digest = digest
        self.length = length

    def add(self, record: bytes) -> None:
        """Link the canonical bytes of the next record."""
        hasher = hashlib.sha256(self.digest)
        hasher.update(record)
        self.digest = hasher.digest()
        self.length += 1

    def hex(self) -> str:
        """The digest so far, in hexadecimal."""
        return self.digest.hex()
