"""SASL/OAUTHBEARER tokens, fetched for each connection because they expire."""

from collections.abc import Callable

from kafka.net.sasl.oauth import AbstractTokenProvider


class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]
    """Supplies the client with the token that `fetch` returns."""

    def __init__(self, fetch: Callable[[], str]) -> None:
        self._fetch = fetch

    def token(self) -> str:
        """Return the current token."""
        return self._fetch()
