"""The units of ops/systemd: commands and settings of the program, its exit codes, and an exposure that is low."""

import configparser
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from prectr.ops.cli.main import FAILED, USAGE_ERROR
from prectr.ops.settings.loader import ENVIRONMENT_PREFIX, load_settings
from tests.local_stack.tools import needed
from tests.ops.live.test_containers import parsed

FOLDER = Path(__file__).parents[3] / "ops" / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
INSTANCE = "3"
MOST_EXPOSED = 2.0
"""Of 10, as systemd-analyze rates it."""

per_unit = pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)


def environment() -> dict[str, str]:
    lines = (FOLDER / "prectr.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def service(path: Path) -> dict[str, str]:
    """The section [Service], with the variables and specifiers that systemd would replace."""
    unit = configparser.RawConfigParser(strict=True)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(path)
    text = {name: value.replace("%S", "/var/lib").replace("%i", INSTANCE) for name, value in unit["Service"].items()}
    for name, value in environment().items():
        text["ExecStart"] = text["ExecStart"].replace(f"${{{name}}}", value)
    return text


@per_unit
def test_the_command_is_one_of_the_program_and_writes_to_folders_that_the_unit_has(path: Path) -> None:
    found = service(path)
    program, *words = shlex.split(found["ExecStart"])
    assert program == "/opt/prectr/bin/prectr"
    assert "$" not in found["ExecStart"]
    options = parsed(words)
    assert options["bootstrap"] == environment()["KAFKA"]
    folders = [f"/var/lib/{folder}" for folder in found["StateDirectory"].split()]
    written = [options.get(name) for name in ("state_dir", "run_dir", "data_dir", "snapshots")]
    assert [str(folder) for folder in written if folder is not None] == folders
    assert found["WorkingDirectory"] == folders[0]


def test_no_two_units_share_a_port_or_a_folder() -> None:
    ports, folders = [], []
    for path in UNITS:
        options = parsed(shlex.split(service(path)["ExecStart"])[1:])
        ports += [options["metrics_port"], *([options["port"]] if "port" in options else [])]
        folders.append(service(path)["WorkingDirectory"])
    assert len(set(ports)) == len(ports) == 4
    assert len(set(folders)) == len(UNITS) == 3


def test_settings_of_the_environment_file_are_settings_of_the_program() -> None:
    load_settings(environ={key: value for key, value in environment().items() if key.startswith(ENVIRONMENT_PREFIX)})


@per_unit
def test_a_failure_is_restarted_without_end_and_a_wrong_setting_is_not(path: Path) -> None:
    found = service(path)
    assert found["Restart"] == "on-failure"
    assert found["RestartPreventExitStatus"] == str(USAGE_ERROR)
    assert str(FAILED) not in found["RestartPreventExitStatus"]
    assert "StartLimitIntervalSec=0" in path.read_text().partition("[Service]")[0].splitlines()
    # The whole of a stop: the transactions of a stream worker, or a checkpoint.
    assert (found["KillMode"], int(found["TimeoutStopSec"]) >= 60) == ("mixed", True)


@per_unit
def test_systemd_accepts_the_unit_and_rates_its_exposure_low(path: Path, tmp_path: Path) -> None:
    analyze = needed("systemd-analyze")
    copy = tmp_path / path.name.replace("@", f"@{INSTANCE}")
    copy.write_text(path.read_text().replace("/opt/prectr/bin/prectr", sys.executable))
    verified = subprocess.run([analyze, "verify", copy], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    security = [analyze, "security", "--offline=true", "--no-pager", copy]
    rated = subprocess.run(security, capture_output=True, text=True, check=False)
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", rated.stdout)
    assert exposure is not None, rated.stdout + rated.stderr
    assert float(exposure[1]) < MOST_EXPOSED
