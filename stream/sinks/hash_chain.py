"""A hash chain over a stream of records: equal digests mean equal streams, bit for bit."""

import hashlib
from collections.abc import Iterable


class HashChain:
    """d(i) = SHA-256(d(i-1) followed by record i), where d(0) is 32 zero bytes; `length` is the number of records."""

    __slots__ = ("digest", "length")

    def __init__(self, digest: bytes = bytes(32), length: int = 0) -> None:
        self.digest = digest
        self.length = length

    def add(self, records: Iterable[bytes]) -> None:
        """Add the canonical bytes of the next records."""
        digest, length = self.digest, self.length
        for record in records:
            hasher = hashlib.sha256(digest)
            hasher.update(record)
            digest = hasher.digest()
            length += 1
        self.digest, self.length = digest, length

    def hex(self) -> str:
        """Return the digest so far in hexadecimal."""
        return self.digest.hex()
