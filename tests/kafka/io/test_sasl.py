"""A broker that requires a password, which is read from a file or the environment and never printed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.command import prectr, write_log
from testkit.kafka_broker import INSTALL_HINT, Broker, kafka_home
from tests.kit.stages.events import T, page

PASSWORD = "hunter2-of-ada"
_JAAS = (
    "listener.name.sasl_plaintext.plain.sasl.jaas.config="
    "org.apache.kafka.common.security.plain.PlainLoginModule required "
    f'user_ada="{PASSWORD}";\n'
)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[str]:
    """The address of a broker's SASL/PLAIN listener."""
    home = kafka_home()
    if home is None:
        pytest.skip(f"no Kafka to test with: {INSTALL_HINT}")
    folder = tmp_path / "kafka"
    broker = Broker(home, folder)
    properties = folder / "server.properties"
    text = properties.read_text().replace("PLAINTEXT://127", "SASL_PLAINTEXT://127")
    properties.write_text(
        text + "sasl.enabled.mechanisms=PLAIN\nsasl.mechanism.inter.broker.protocol=PLAIN\n"
        "listener.security.protocol.map=CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT\n"
        "inter.broker.listener.name=SASL_PLAINTEXT\n"
        + _JAAS.replace("user_ada", f'username="ada" password="{PASSWORD}" user_ada')
    )
    try:
        broker.start()
        yield broker.address
    finally:
        broker.stop()


def test_a_password_opens_the_broker_and_is_printed_nowhere(guarded: str, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", [page(f"r{n}", f"u{n}", T + n * 1000) for n in range(20)])
    config = tmp_path / "client.toml"
    settings = 'security_protocol = "SASL_PLAINTEXT"\nsasl_mechanism = "PLAIN"\nsasl_plain_username = "ada"\n'
    config.write_text(settings + 'sasl_plain_password_file = "password"\n')
    (tmp_path / "password").write_text(PASSWORD + "\n")
    given = ["--bootstrap", guarded, "--client-config", config]
    output = ""
    run = tmp_path / "run"
    for command in (
        ["topics", "create"],
        ["topics", "check"],
        ["load", log],
        ["stream", "--state-dir", tmp_path / "state", "--until-end", "--flush"],
        ["train", "--run-dir", run, "--model", "lr", "--until-end", "--flush"],
        ["dlq", "list"],
    ):
        done = prectr(*command, *given)
        assert done.returncode == 0, done.stdout + done.stderr
        output += done.stdout + done.stderr
    written = [
        path.read_bytes() for folder in (run, tmp_path / "state") for path in folder.rglob("*") if path.is_file()
    ]
    assert written
    assert not any(PASSWORD.encode() in content for content in written)
    assert PASSWORD not in output

    wrong = "hunter3-of-ada"
    config.write_text(settings + 'sasl_plain_password_env = "BROKER_PASSWORD"\n')
    assert prectr("dlq", "list", *given, BROKER_PASSWORD=PASSWORD).returncode == 0
    plain = prectr("dlq", "list", "--bootstrap", guarded, "--connect-timeout", "3")
    assert plain.returncode == 1
    assert "the security settings of --client-config" in plain.stderr
    for debug in ("", "1"):
        # A refusal ends the wait, so a busy broker may have long for it.
        done = prectr("dlq", "list", *given, "--connect-timeout", "60", BROKER_PASSWORD=wrong, PRECTR_DEBUG=debug)
        assert done.returncode == 1
        *_, last = done.stderr.splitlines()
        assert last.startswith(f"prectr: {guarded}: Kafka rejects the login (SaslAuthenticationFailedError: ")
        assert "check the sasl_ settings" in last
        assert wrong not in done.stdout + done.stderr
