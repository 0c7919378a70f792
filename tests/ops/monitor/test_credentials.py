"""The client settings become Faust's credentials, or an error that says no value."""

from pathlib import Path

import pytest
from faust.auth import SASLCredentials, SSLCredentials

from prectr.ops.monitor.credentials import credentials
from prectr.state.errors import ConfigError
from prectr.stream.kafka.client.client import Connection

SECRET = "s3cret"


def made(**settings: object) -> object:
    return credentials(Connection("localhost:9092", settings))


def test_without_settings_there_is_no_login() -> None:
    assert made() is None
    assert made(security_protocol="PLAINTEXT", request_timeout_ms=5000) is None


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_passwords_are_handed_on(mechanism: str, protocol: str) -> None:
    found = made(
        security_protocol=protocol,
        sasl_mechanism=mechanism,
        sasl_plain_username="ada",
        sasl_plain_password=SECRET,
    )
    assert isinstance(found, SASLCredentials)
    assert (found.username, found.password, found.mechanism.value) == ("ada", SECRET, mechanism)
    assert found.protocol.value == protocol
    assert (found.ssl_context is not None) == (protocol == "SASL_SSL")
    assert SECRET not in repr(found)


def test_tls_checks_the_brokers_name_unless_disabled() -> None:
    strict = made(security_protocol="SSL")
    lax = made(security_protocol="SSL", ssl_check_hostname=False)
    assert isinstance(strict, SSLCredentials)
    assert isinstance(lax, SSLCredentials)
    assert strict.context.check_hostname
    assert not lax.context.check_hostname
    # The certificate itself is checked in any case.
    assert strict.context.verify_mode == lax.context.verify_mode


def test_what_cannot_be_had_is_an_error_without_a_value(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sasl_mechanism: the monitor supports PLAIN"):
        made(security_protocol="SASL_PLAINTEXT", sasl_mechanism="GSSAPI")
    (tmp_path / "ca.pem").write_text(SECRET)
    for path in (tmp_path / "ca.pem", tmp_path / "missing.pem"):
        with pytest.raises(ConfigError, match="a certificate or key cannot be read") as found:
            made(security_protocol="SSL", ssl_cafile=str(path))
        assert SECRET not in str(found.value)
