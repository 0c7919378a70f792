"""Promises of the command line: help with an example, one line for an error, exit codes 0, 1 and 2."""

import errno
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import prectr.ops.commands
from prectr.ops.cli.main import COMMANDS, main
from prectr.state.errors import ConfigError, InputError
from prectr.state.system_limits import soft_limit

THREADS = soft_limit(resource.RLIMIT_NPROC)
INTERRUPTED = "prectr: interrupted; rerun the same command to resume from the last checkpoint, if it writes any\n"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["prectr", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    monkeypatch.delenv("PRECTR_DEBUG", raising=False)
    return call


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Put a command `schema` in place that raises."""

    def put(error: BaseException) -> None:
        def schema() -> None:
            raise error

        module = type(sys)("prectr.ops.commands.data.schema")
        module.schema = schema  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "prectr.ops.commands.data.schema", module)

    return put


def test_help_lists_every_command_without_importing_it() -> None:
    code = (
        "import sys; sys.argv = ['prectr', '--help']\n"
        "from prectr.ops.cli.main import main\n"
        "try: main()\n"
        "finally: print([m for m in sys.modules if m.startswith(('torch', 'numpy', 'prectr.ops.commands', 'stream'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.rstrip().endswith("[]")
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(run: Run, name: str) -> None:
    code, out, _ = run(name, "--help")
    assert code == 0
    assert f"prectr {name}" in " ".join(out.split())


def test_the_version_is_printed(run: Run) -> None:
    code, out, _ = run("--version")
    assert code == 0
    assert re.fullmatch(r"prectr 0\.1\.0, (native core|stages in Python \(.+\))\n", out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["simulat"], "did you mean 'simulate'?"),
        (["xyzzy"], "the commands are convert, check"),
        (["--bogus"], "--bogus"),
        (["schema", "--bogus"], "--bogus"),
        (["schema", "extra"], "extra"),
    ],
)
def test_wrong_use_ends_with_code_2(run: Run, arguments: list[str], said: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("log.jsonl is cut off"), 1, "prectr: log.jsonl is cut off\n"),
        (ConfigError("partitions: 0 is out of range"), 2, "prectr: partitions: 0 is out of range\n"),
        (OSError(errno.EACCES, "Permission denied", "run/x"), 1, "prectr: run/x: Permission denied\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "run/x"),
            1,
            "prectr: run/x: No space left on device: the disk is full, or has no inodes left: free some space, then "
            "run the same command again\n",
        ),
        (
            RuntimeError("can't start new thread"),
            1,
            f"prectr: can't start new thread: the limit of threads is reached, which for this user is {THREADS}: raise "
            "it, by ulimit -u, TasksMax= of a unit or pids_limit of a container, then run the same command again\n",
        ),
        (OSError("odd"), 1, "prectr: odd\n"),
        (KeyboardInterrupt(), 1, INTERRUPTED),
        (
            ZeroDivisionError("float division"),
            1,
            "prectr: internal error: ZeroDivisionError: float division; please report it with the traceback "
            "(PRECTR_DEBUG=1)\n",
        ),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    run: Run, failing: Callable[[BaseException], None], error: BaseException, code: int, line: str
) -> None:
    failing(error)
    assert run("schema") == (code, "", line)


def test_debug_shows_the_traceback(
    run: Run, failing: Callable[[BaseException], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(InputError("cut off"))
    monkeypatch.setenv("PRECTR_DEBUG", "1")
    code, _, err = run("schema")
    assert code == 1
    assert "Traceback" in err
    assert err.endswith("prectr: cut off\n")


def test_a_reader_that_goes_away_is_no_error(run: Run, failing: Callable[[BaseException], None]) -> None:
    failing(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    code, out, err = run("schema")
    assert (code, out, err) == (1, "", "")


def test_schema_prints_or_writes_the_schema(run: Run, tmp_path: Path) -> None:
    code, out, err = run("schema")
    assert (code, err) == (0, "")
    assert run("schema", "--out", str(tmp_path / "x.json")) == (0, "", "")
    assert (tmp_path / "x.json").read_text() == out
    code, _, err = run("schema", "--out", str(tmp_path / "missing" / "x.json"))
    assert code == 1
    assert err.endswith("x.json: No such file or directory\n")


def test_a_file_with_commands_of_its_own_is_a_group(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    module = type(sys)("prectr.ops.commands.pipeline.state")
    module.app = typer.Typer()  # type: ignore[attr-defined]

    @module.app.command()
    def show(query: str) -> None:
        typer.echo(query)

    @module.app.command()
    def keys() -> None:
        typer.echo("none")

    monkeypatch.setitem(sys.modules, "prectr.ops.commands.pipeline.state", module)
    assert run("state", "show", "red shoes") == (0, "red shoes\n", "")


def test_commands_are_files() -> None:
    folder = Path(prectr.ops.commands.__file__).parent
    files = {path.stem for path in folder.glob("*/*.py")} - {"__init__"}
    assert set(COMMANDS) == files
