"""The command line, as its users see it."""

import os
import pty
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpcore
import msgspec
import pytest

from onnx_models import load_catalogue
from server.specs.version import VERSION
from server.state.database import Database
from server.state.logins import authenticate
from tests.server.conftest import Tilewire
from tests.server.support.harness import FAST_MODEL, PATIENCE, connected
from tests.server.support.process import REPOSITORY, environment, serving


def test_models_are_listed_whole_in_80_columns(tilewire: Tilewire) -> None:
    shown = tilewire("models", "list").stdout
    assert max(map(len, shown.splitlines())) <= 80
    for model in load_catalogue():
        assert re.search(rf"^  {re.escape(model.name)}\b", shown, re.MULTILINE)
        assert model.air in shown
        assert str(model.price_per_megapixel) in shown
    assert "…" not in shown


def test_models_can_be_built_ahead(tilewire: Tilewire, tmp_path: Path) -> None:
    result = tilewire("models", "build", FAST_MODEL, TILEWIRE_MODEL_DIRECTORY=str(tmp_path / "models"))
    assert result.exit_code == 0
    assert FAST_MODEL in result.stdout
    assert list((tmp_path / "models").rglob("*.onnx"))


def test_building_an_unknown_model_is_told(tilewire: Tilewire) -> None:
    result = tilewire("models", "build", "nonsense")
    assert result.exit_code == 2
    assert "'nonsense'" in result.stderr


def test_config_tells_every_setting_and_its_place(tilewire: Tilewire, tmp_path: Path) -> None:
    file = tmp_path / "tilewire.toml"
    file.write_text(
        'port = 9001\nprices = {"realesrgan-x4plus" = 0.0013}\nmodels = ["a", "b"]', encoding="utf-8"
    )
    secrets = {
        "TILEWIRE_API_KEY": "tw_hidden-from-those-who-look",
        "TILEWIRE_DATABASE_URL": "postgresql://me:secret@db/x",
    }
    shown = tilewire("config", "--config", file, **secrets).stdout
    assert tilewire("config", file, **secrets).stdout == shown
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in shown.splitlines()}
    assert lines["port"] == f"9001 ({file})"
    assert lines["host"] == "127.0.0.1 (default)"
    assert lines["prices"] == f"realesrgan-x4plus = 0.0013 ({file})"
    assert lines["models"] == f"a, b ({file})"
    assert lines["api_key"] == "(hidden) (environment)"
    assert lines["database_url"] == "postgresql://me:***@db/x (environment)"
    assert lines["public_url"] == "- (default)"


@pytest.mark.parametrize(
    "command", [("config",), ("serve",), ("upscale", "x.png"), ("keys", "list"), ("models", "build")]
)
def test_a_wrong_setting_stops_every_command_with_one_line(
    tilewire: Tilewire, command: tuple[str, ...]
) -> None:
    result = tilewire(*command, TILEWIRE_PORT="many")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "port: Expected `int`, got `str` (environment)\n"


def test_a_short_key_and_a_misspelt_name_are_refused(tilewire: Tilewire, tmp_path: Path) -> None:
    short = tilewire("config", TILEWIRE_API_KEY="nineteen-characters")
    assert (short.exit_code, short.stderr) == (2, "api_key: Expected `str` of length >= 20 (environment)\n")
    file = tmp_path / "tilewire.toml"
    file.write_text("prot = 9001", encoding="utf-8")
    misspelt = tilewire("config", "--config", file)
    assert misspelt.stderr == f"there is no setting 'prot' ({file}); did you mean 'port'?\n"


def test_a_value_that_is_no_choice_is_refused_with_the_choices(tilewire: Tilewire) -> None:
    result = tilewire("config", TILEWIRE_LOG_LEVEL="loud")
    told = "log_level: must be one of debug, info, warning, error, not 'loud' (environment)\n"
    assert result.stderr == told


def test_help_is_shown_for_every_command(tilewire: Tilewire) -> None:
    listed = tilewire("-h").stdout.partition("Commands:\n")[2].splitlines()
    assert "..." not in "".join(listed), "each is explained whole in 80 columns"
    names = [line.split()[0] for line in listed]
    assert {"serve", "upscale", "models", "keys", "accounts", "bench", "top", "config"} <= set(names)
    for command in [*([name] for name in names), ["keys", "create"]]:
        shown = tilewire(*command, "-h").stdout
        assert "Usage" in shown
        assert "..." not in shown.partition("Commands:\n")[2]
        assert max(map(len, shown.splitlines())) <= 80


def test_help_and_version_import_no_command() -> None:
    program = """
import sys
from typer.testing import CliRunner
from server.cli import app
print(*(CliRunner().invoke(app, [flag]).exit_code for flag in ("--help", "--version")))
heavy = ("server.commands", "engines", "numpy", "sqlalchemy")
print([name for name in sys.modules if name.startswith(heavy)])
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True, cwd=REPOSITORY
    )
    assert ran.stdout == "0 0\n[]\n"


def test_the_version_is_printed(tilewire: Tilewire) -> None:
    assert tilewire("--version").stdout == f"{VERSION}\n"


Fails = Callable[..., str]


@pytest.fixture
def serve_fails(tmp_path: Path, model_directory: Path) -> Fails:
    """Runs `tilewire serve`, which is to fail; what it says last."""

    def run(*arguments: str, **more: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-m", "server", "serve", *arguments],
            env=environment(tmp_path / "data", model_directory, **more),
            capture_output=True,
            encoding="utf-8",
            timeout=2 * PATIENCE,
            check=False,
        )
        assert ended.returncode == 1
        assert "Traceback" not in ended.stderr
        assert ended.stdout == ""
        return ended.stderr.splitlines()[-1]

    return run


def test_a_port_that_is_taken_is_told(serve_fails: Fails) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        told = serve_fails("--port", port)
    assert told == f"cannot listen on 127.0.0.1, port {port}: Address already in use"


def test_a_model_to_be_loaded_that_is_unknown_is_told(serve_fails: Fails) -> None:
    assert "'nonsense'" in serve_fails("--port", "0", "--models", "nonsense")


def test_a_data_directory_that_cannot_be_is_told(serve_fails: Fails, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert str(file) in serve_fails("--port", "0", "--data", str(file))


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("TILEWIRE_DATABASE_URL", "nonsense", "SQLAlchemy URL"),
        ("TILEWIRE_DATABASE_URL", "sqlite:////no/such/directory/x.db", "unable to open"),
        ("TILEWIRE_STORAGE_URL", "nonsense://x", "nonsense://x"),
    ],
)
def test_a_database_or_store_that_cannot_be_is_told(
    serve_fails: Fails, name: str, value: str, told: str
) -> None:
    assert told in serve_fails("--port", "0", **{name: value})


async def test_serve_announces_where_it_is_and_works(tmp_path: Path, model_directory: Path) -> None:
    with serving(tmp_path, model_directory, TILEWIRE_MODELS=FAST_MODEL) as server:
        assert max(map(len, server.announced.splitlines())) <= 80
        assert "API key" not in server.announced, "one was configured"
        async with httpcore.AsyncConnectionPool() as pool:
            assert (await pool.request("GET", f"{server.url}/readyz")).status == 200
        async with connected(server) as peer:
            await peer.nothing_more()


def test_the_first_start_makes_a_key_and_keeps_it_where_no_terminal_shows_it(
    tmp_path: Path, model_directory: Path
) -> None:
    with serving(tmp_path, model_directory, TILEWIRE_API_KEY="") as server:
        assert "tw_" not in server.announced, "it is no terminal"
        assert f"API key: in {tmp_path / 'first-key'}" in server.announced
        assert f"page: {server.url}/\n" in server.announced
    assert (tmp_path / "first-key").stat().st_mode & 0o777 == 0o600
    key = (tmp_path / "first-key").read_text("utf-8").strip()
    with serving(tmp_path, model_directory, TILEWIRE_API_KEY="") as server:
        assert "API key" not in server.announced
    database = Database(f"sqlite:///{tmp_path / 'tilewire.db'}")
    assert database.run_sync(authenticate, key, 0.0) is not None
    database.close()


def test_a_terminal_is_shown_the_key_and_a_link_that_signs_in(tmp_path: Path, model_directory: Path) -> None:
    ours, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "server", "serve", "--port", "0"],
        env=environment(tmp_path, model_directory, TILEWIRE_MODELS=""),
        stdin=terminal, stdout=terminal, stderr=terminal,
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    with os.fdopen(ours, "rb", buffering=0) as screen, suppress(OSError):  # EIO: nobody has the terminal
        while part := screen.read(65536):
            shown += part
            if b"models:" in shown and process.poll() is None:
                process.terminate()
    assert process.wait(PATIENCE) == 0
    (key,) = set(re.findall(rb"tw_[\w-]{43}", shown))
    assert re.search(rb"page: \S*http://127.0.0.1:\d+/#key=" + key, shown)
    assert not (tmp_path / "first-key").exists()


def test_for_machines_every_line_is_json(tmp_path: Path, model_directory: Path) -> None:
    env = environment(tmp_path, model_directory, TILEWIRE_MODELS="", TILEWIRE_LOG_FORMAT="json")
    with subprocess.Popen(
        [sys.executable, "-m", "server", "serve", "--port", "0"],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if msgspec.json.decode(line)["event"] == "ready":
                process.terminate()
    assert process.returncode == 0
    failed = subprocess.run(
        [sys.executable, "-m", "server", "serve", "--port", "0", "--models", "nonsense"],
        env=env, capture_output=True, check=False,
    )  # fmt: skip
    assert failed.returncode == 1
    assert "nonsense" in msgspec.json.decode(failed.stderr)["event"]
