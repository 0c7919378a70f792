"""Promises of the wheel: it holds every file of the four folders, and works where it is installed."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from testkit.command import environment

ROOT = Path(__file__).parents[2]
FOLDERS = ("model", "ops", "state", "stream")
PAGES = """
from importlib.resources import files
from urllib.request import urlopen
from prectr.ops.metrics.exporter import Exporter
from prectr.ops.monitor.server import PageServer
with PageServer(0, "127.0.0.1") as server:
    page = urlopen(f"http://127.0.0.1:{server.port}/").read().decode()
exporter = Exporter(lambda _: iter(()), 0)
alive = urlopen(f"http://127.0.0.1:{exporter.port}/healthz").status
exporter.close()
ops = files("prectr.ops")
boards = [each for each in (ops / "dashboards").iterdir() if each.name.endswith(".json")]
print("</html>" in page, alive, (ops / "alerts" / "prectr.rules.yml").read_text().count("alert: ") > 10, len(boards))
"""
USE = """
import sys
import prectr
report = prectr.replay("log.jsonl.gz", "run", model="lr", partitions=1)
ranking = prectr.Ranker.load("run").rank(query="a", user="u1", candidates=["a", "b"])
print([prectr.__file__, report.pages, len(ranking.ranked)])
"""


def files_of(*paths: str) -> list[str]:
    """The files of the checkout that git knows or does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *paths]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in listed if (ROOT / name).exists()]


def succeed(*command: str | Path, cwd: Path) -> str:
    """Run a command, which must succeed; returns its standard output."""
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=300, env=environment(), check=False
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in files_of(*FOLDERS, "prectr", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        target = folder / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    succeed(*pip, "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", folder, folder / "source", cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_file_of_the_four_folders_and_no_module_outside_prectr(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert not {f"prectr/{name}" for name in files_of(*FOLDERS)} - names
    assert {"prectr/__init__.py", "prectr/api.py", "prectr/py.typed"} <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"prectr", "prectr_streaming"}


def test_the_installed_wheel_works_in_a_folder_with_modules_of_the_same_names(wheel: Path, tmp_path: Path) -> None:
    succeed(sys.executable, "-m", "venv", "--without-pip", "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    succeed(*pip, "install", "-q", "--no-deps", "--no-index", "--no-compile", wheel, cwd=tmp_path)
    (packages,) = (tmp_path / "venv").glob("lib/*/site-packages")
    # Dependencies come from here; a path in a .pth file does not read the .pth files there, such as our own.
    (packages / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    (tmp_path / "model.py").write_text("raise AssertionError('another module was imported')")
    (tmp_path / "stream").mkdir()
    (tmp_path / "stream" / "__init__.py").write_text("raise AssertionError('another module was imported')")
    (tmp_path / "use.py").write_text(USE)
    prectr = tmp_path / "venv" / "bin" / "prectr"
    assert succeed(prectr, "--version", cwd=tmp_path).startswith("prectr ")
    succeed(prectr, "simulate", "--pages", "60", "--catalogue", "chorus", "--out", "log.jsonl.gz", cwd=tmp_path)
    assert succeed(prectr, "schema", cwd=tmp_path) == (ROOT / "docs" / "search-events.schema.json").read_text()
    succeed(prectr, "settings", "--markdown", "settings.md", cwd=tmp_path)
    assert (tmp_path / "settings.md").read_text() == (ROOT / "docs" / "configuration.md").read_text()
    assert succeed(python, "-c", PAGES, cwd=tmp_path).split() == ["True", "200", "True", "5"]
    file, pages, ranked = json.loads(succeed(python, "use.py", cwd=tmp_path).replace("'", '"'))
    assert file == str(packages / "prectr" / "__init__.py")
    assert (pages, ranked) == (60, 2)
