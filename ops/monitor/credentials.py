"""Converts the Kafka client settings to those of Faust and aiokafka."""

import ssl
from collections.abc import Mapping
from typing import Any, Final

from aiokafka.abc import AbstractTokenProvider  # type: ignore[import-untyped]
from faust.auth import Credentials, OAuthCredentials, SASLCredentials, SSLCredentials

from prectr.state.errors import ConfigError
from prectr.stream.kafka.client.client import Connection

_PASSWORD_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


def credentials(connection: Connection) -> Credentials | None:
    """The credentials for the broker; None without authentication.

    Raises:
        ConfigError: Faust does not support the mechanism, or a certificate cannot be read. The message never quotes a
            value, which may be a secret.
    """
    settings = connection.settings
    protocol = str(settings.get("security_protocol", "PLAINTEXT")).upper()
    context = _context(settings) if protocol in ("SSL", "SASL_SSL") else None
    if protocol == "PLAINTEXT":
        return None
    if protocol == "SSL":
        return SSLCredentials(context)
    mechanism = str(settings.get("sasl_mechanism", "PLAIN")).upper()
    if mechanism in _PASSWORD_MECHANISMS:
        return SASLCredentials(
            username=settings.get("sasl_plain_username"),
            password=settings.get("sasl_plain_password"),
            mechanism=mechanism,
            ssl_context=context,
        )
    if mechanism == "OAUTHBEARER":
        return OAuthCredentials(oauth_cb=_TokenProvider(settings["sasl_oauth_token_provider"]), ssl_context=context)
    raise ConfigError(
        f"client setting sasl_mechanism: the monitor supports {', '.join(_PASSWORD_MECHANISMS)} and OAUTHBEARER, "
        f"not {mechanism}"
    )


def _context(settings: Mapping[str, Any]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.get("ssl_cafile"))
        if settings.get("ssl_certfile") is not None:
            context.load_cert_chain(
                settings["ssl_certfile"], settings.get("ssl_keyfile"), password=settings.get("ssl_password")
            )
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError(f"client settings ssl_: a certificate or key cannot be read ({reason})") from error
    context.check_hostname = bool(settings.get("ssl_check_hostname", True))
    return context


class _TokenProvider(AbstractTokenProvider):  # type: ignore[misc]
    """Wraps our own token provider, which re-reads the token on each call."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider

    async def token(self) -> str:
        return str(self._provider.token())
