"""Keys whose byte order is the order of what they stand for."""


def encode_order_key(closes_at: int, request_id: str, user_id: str) -> bytes:
    """Bytes that sort as (closes_at, request_id bytes, user_id bytes). closes_at: ms, any signed 64-bit number.

    A NUL inside an id becomes NUL 0xFF and each id ends with NUL NUL, so that no id runs into the next.
    """
    return b"".join(
        (
            (closes_at + (1 << 63)).to_bytes(8, "big"),
            request_id.encode().replace(b"\0", b"\0\xff"),
            b"\0\0",
            user_id.encode().replace(b"\0", b"\0\xff"),
            b"\0\0",
        )
    )
