"""The token of SASL/OAUTHBEARER, asked for anew at each connection, since tokens expire."""

from collections.abc import Callable

from kafka.net.sasl.oauth import AbstractTokenProvider


class TokenProvider(AbstractTokenProvider):  # type: ignore[misc]
    """Gives the client the token that `fetch` returns; whoever renews the token only replaces it there."""

    def __init__(self, fetch: Callable[[], str]) -> None:
        self._fetch = fetch

    def token(self) -> str:
        """The token as it is now."""
        return self._fetch()
