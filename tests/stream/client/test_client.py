"""Settings of the Kafka clients: read from a file, with secrets from files or the environment that are never shown."""

import logging
import socket
from pathlib import Path

import pytest
from kafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    KafkaError,
    TopicAuthorizationFailedError,
)

import prectr.stream.kafka.client.client
from prectr.ops.cli.client_config import connection
from prectr.state.errors import ConfigError, PrectrError
from prectr.stream.kafka.client.client import Connection
from testkit.command import prectr

SECRET = "hunter2-äöü"


def settings_of(tmp_path: Path, text: str) -> dict[str, object]:
    config = tmp_path / "client.toml"
    config.write_text(text, encoding="utf-8")
    return dict(connection("127.0.0.1:9", config, 1.0).settings)


def test_settings_are_passed_on_and_secrets_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n", encoding="utf-8")
    monkeypatch.setenv("KEY_PASSWORD", "of the key")
    found = settings_of(
        tmp_path,
        'security_protocol = "SASL_SSL"\nrequest_timeout_ms = 5000\nsasl_plain_password_file = "secret"\n'
        'ssl_password_env = "KEY_PASSWORD"\nssl_check_hostname = false\n',
    )
    assert found == {
        "security_protocol": "SASL_SSL",
        "request_timeout_ms": 5000,
        "sasl_plain_password": SECRET,
        "ssl_password": "of the key",
        "ssl_check_hostname": False,
    }


def test_a_token_is_reread_at_each_connection(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first\n")
    provider = settings_of(tmp_path, 'sasl_oauth_token_file = "token"')["sasl_oauth_token_provider"]
    assert provider.token() == "first"  # type: ignore[attr-defined]
    (tmp_path / "token").write_text("second\n")
    assert provider.token() == "second"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'sasl_plain_pasword = "{SECRET}"', "the nearest is sasl_plain_password"),
        (f'transactional_id = "{SECRET}"', "exactly-once processing depends on it"),
        (f'ssl_context = "{SECRET}"', "a Python object"),
        (f'sasl_oauth_token_provider = "{SECRET}"', "set sasl_oauth_token_file to a file with the token"),
        (f'request_timeout_ms = "{SECRET}"', "must be a number, but is of type str"),
        (f'ssl_check_hostname = "{SECRET}"', "must be true or false, but is of type str"),
        ("sasl_plain_password = 42424242", "must be text, in quotes, but is of type int"),
        ("request_timeout_ms = true", "must be a number, but is of type bool"),
        (f"sasl_plain_password = {SECRET}", "are not TOML"),
        ('sasl_plain_password_file = "none"', "none cannot be read: No such file"),
        ('sasl_plain_password_file = "empty"', "is empty"),
        ('sasl_plain_password_env = "NOT_THERE"', "the environment variable NOT_THERE is not set"),
        ("sasl_plain_password_env = 42424242", "must be a quoted string"),
        (f'sasl_plain_password = "{SECRET}"\nsasl_plain_password_env = "X"', "sasl_plain_password is set too"),
    ],
)
def test_a_setting_that_cannot_be_is_named_and_its_value_is_not(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigError) as refused:
        settings_of(tmp_path, text)
    assert expected in str(refused.value)
    assert str(refused.value).startswith(f"{tmp_path / 'client.toml'}: ")
    assert SECRET not in str(refused.value)
    assert "42424242" not in str(refused.value)


def test_a_secret_is_in_no_message_and_in_no_representation() -> None:
    made = Connection("broker:1", {"sasl_plain_password": SECRET, "sasl_plain_username": "ada"})
    assert SECRET not in repr(made)
    with pytest.raises(PrectrError) as refused, made.translate_errors():
        raise KafkaConnectionError(f"refused ada with {SECRET}")
    assert "refused ada with ***" in str(refused.value)


def test_a_missing_broker_is_logged_at_once_and_repeatedly_while_waiting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("prectr.stream.kafka.client.client._LOG_INTERVAL", 0.0)
    monkeypatch.setattr("prectr.stream.kafka.client.client._FIRST_ATTEMPT_MS", 100)
    with pytest.raises(PrectrError, match="no answer from Kafka in 1 s"), caplog.at_level(logging.WARNING):
        Connection("127.0.0.1:9", connect_timeout=1.0).producer()
    logged = [message for message in caplog.messages if "no answer from Kafka, retrying for another" in message]
    assert len(logged) > 1


def test_waiting_is_logged_to_stderr_without_a_terminal(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        done = prectr("topics", "create", "--bootstrap", address, "--connect-timeout", "4")
    assert done.returncode == 1
    assert f"WARNING {address}: no answer from Kafka, retrying for another" in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith(f"prectr: {address}: no answer from Kafka in 4 s")


def test_the_reason_for_a_failed_connection_is_reported() -> None:
    done = prectr("topics", "create", "--bootstrap", "127.0.0.1:9", "--connect-timeout", "1")
    assert "(the last attempt: KafkaConnectionError: 111 ECONNREFUSED)" in done.stderr
    assert all("WARNING" in line or line.startswith("prectr: ") for line in done.stderr.splitlines())


@pytest.mark.parametrize(
    "command",
    [
        ["topics", "check"],
        ["dlq", "list"],
        ["dlq", "show", "0:1"],
        ["dlq", "export", "--out", "DIR/dead-letters.jsonl"],
        ["dlq", "retry", "0:1", "--yes"],
    ],
)
def test_each_command_reports_a_missing_broker(command: list[str], tmp_path: Path) -> None:
    given = [part.replace("DIR", str(tmp_path)) for part in command]
    done = prectr(*given, "--bootstrap", "127.0.0.1:9", "--connect-timeout", "1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("prectr: 127.0.0.1:9: no answer from Kafka in 1 s")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("kafka:9092", "kafka:9092"),
        ("PLAINTEXT://localhost:9092", "localhost:9092"),
        (" a:1 , SASL_SSL://b:2,", "a:1,b:2"),
        ("[::1]:9092", "[::1]:9092"),
    ],
)
def test_addresses_are_read_as_people_write_them(written: str, read: str) -> None:
    assert Connection(written).bootstrap == read


@pytest.mark.parametrize(
    "written", ["", " , ", "kafka", "kafka:", ":9092", "kafka:99999", "http://kafka/9092", "a b:1"]
)
def test_what_is_no_address_is_told(written: str) -> None:
    with pytest.raises(ConfigError, match=r"host:port, such as kafka:9092"):
        Connection(written)


@pytest.mark.parametrize(
    ("error", "right"),
    [
        (TopicAuthorizationFailedError({"search-events"}), "Describe, Read and Write on the topic"),
        (GroupAuthorizationFailedError("g"), "Describe and Read on the group"),
        (ClusterAuthorizationFailedError(), "IdempotentWrite on the cluster"),
    ],
)
def test_a_missing_right_is_named(error: KafkaError, right: str) -> None:
    with pytest.raises(PrectrError, match=right), Connection("h:1").translate_errors():
        raise error
