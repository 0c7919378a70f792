"""The monitor logs in with the same client settings as every other command, and prints none of them."""

from pathlib import Path

from testkit.command import prectr, write_log
from tests.kafka.io.test_sasl import PASSWORD, guarded
from tests.kafka.live import Live
from tests.kafka.monitoring import MonitorProcess
from tests.kit.stages.events import T, page

__all__ = ["guarded"]


def test_the_monitor_logs_in_with_a_password_from_a_file(guarded: str, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", [page(f"r{n}", f"u{n}", T + n * 1000) for n in range(20)])
    config = tmp_path / "client.toml"
    config.write_text(
        'security_protocol = "SASL_PLAINTEXT"\nsasl_mechanism = "PLAIN"\nsasl_plain_username = "ada"\n'
        # A compression that the monitor's client cannot read.
        'sasl_plain_password_file = "password"\ncompression_type = "zstd"\n'
    )
    (tmp_path / "password").write_text(PASSWORD + "\n")
    given = ["--bootstrap", guarded, "--client-config", config]
    for command in (
        ["topics", "create"],
        ["load", log],
        ["stream", "--state-dir", tmp_path / "state", "--until-end", "--flush"],
        ["train", "--run-dir", tmp_path / "run", "--model", "lr", "--until-end", "--flush"],
    ):
        done = prectr(*command, *given)
        assert done.returncode == 0, done.stdout + done.stderr
    live = Live(guarded, "", tmp_path)
    monitor = MonitorProcess(live).start("--client-config", str(config))
    try:
        monitor.wait_for_pages(20)
        assert monitor.process is not None
        monitor.process.terminate()
        log = monitor.wait_for_end()
    finally:
        live.kill_all()
    tables = [path.read_bytes() for path in (tmp_path / "monitor").rglob("*") if path.is_file()]
    assert tables
    assert not any(PASSWORD.encode() in content for content in (*tables, log.encode()))
