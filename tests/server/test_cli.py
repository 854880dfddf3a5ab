"""The command line, as its users see it."""

import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpcore
import pytest
from sqlalchemy import update

from onnx_models import load_catalogue
from server.specs.version import VERSION
from server.state import ledger
from server.state.accounts import account_named, authenticate
from server.state.database import Database
from server.state.tables import accounts
from tests.server.conftest import Tilewire
from tests.server.support.harness import FAST_MODEL, PATIENCE, connected
from tests.server.support.process import REPOSITORY, environment, serving


def test_keys_are_created_listed_and_revoked(tilewire: Tilewire, tmp_path: Path) -> None:
    created = tilewire("keys", "create", "--label", "[laptop] of ada", "--account", "ada", "--credit", "2.50")
    key = created.stdout.strip()
    assert created.stdout == f"{key}\n", "nothing else, so that scripts can take it"
    shown = tilewire("keys", "list").stdout
    for told in (key[:8], "ada", "[laptop] of ada", "never"):
        assert told in shown
    assert key not in shown
    assert "revoked" not in shown
    database = Database(f"sqlite:///{tmp_path / 'data' / 'tilewire.db'}")
    account = database.run_sync(account_named, "ada", 0.0)
    assert database.run_sync(authenticate, key, 0.0).account == account
    assert database.run_sync(ledger.statement, account).available == 2_500_000_000
    identity = shown.splitlines()[1].split()[0]
    revoked = tilewire("keys", "revoke", identity)
    assert (revoked.exit_code, revoked.stdout) == (0, f"revoked {key[:8]}… of ada\n")
    assert database.run_sync(authenticate, key, 0.0) is None
    assert "revoked" in tilewire("keys", "list").stdout
    again = tilewire("keys", "revoke", identity)
    assert (again.exit_code, again.stderr) == (2, "no valid key matches\n")
    database.close()


def test_a_key_that_is_revoked_is_not_repeated_in_errors(tilewire: Tilewire) -> None:
    result = tilewire("keys", "revoke", "tw_a-secret-that-is-not-a-key")
    assert result.exit_code == 2
    assert "secret" not in result.output


def test_accounts_are_listed_and_credited(tilewire: Tilewire) -> None:
    tilewire("keys", "create", "--account", "[ada]", "--credit", "2.50")
    tilewire("keys", "create", "--account", "bob")
    credited = tilewire("accounts", "credit", "[ada]", "0.25")
    assert credited.stdout == "[ada] has 2.75 USD\n"
    heading, ada, bob = tilewire("accounts", "list").stdout.splitlines()
    assert heading.split() == ["account", "balance", "reserved", "charged", "created"]
    assert ada.split()[:4] == ["[ada]", "2.75", "0", "0"]
    assert bob.split()[:5] == ["bob", "no", "limit", "0", "0"]


def test_credit_for_nobody_or_of_nothing_is_refused(tilewire: Tilewire) -> None:
    for name, amount, told in (("nobody", "5", "no account 'nobody'"), ("default", "five", "AMOUNT: 'five'")):
        result = tilewire("accounts", "credit", name, amount)
        assert result.exit_code == 2
        assert told in result.stderr


def test_the_webhook_secret_of_an_account_is_printed_and_rotated(tilewire: Tilewire) -> None:
    tilewire("keys", "create", "--account", "[ada]")
    secret = tilewire("accounts", "webhook-secret", "[ada]").stdout.strip()
    assert secret.startswith("whsec_")
    assert tilewire("accounts", "webhook-secret", "[ada]").stdout.strip() == secret
    rotated = tilewire("accounts", "webhook-secret", "[ada]", "--rotate").stdout.strip()
    assert rotated.startswith("whsec_")
    assert rotated != secret
    assert tilewire("accounts", "webhook-secret", "[ada]").stdout.strip() == rotated
    unknown = tilewire("accounts", "webhook-secret", "nobody")
    assert (unknown.exit_code, unknown.stdout) == (2, "")


def test_an_audit_says_what_it_checked_or_what_is_wrong(tilewire: Tilewire, tmp_path: Path) -> None:
    tilewire("keys", "create", "--account", "ada", "--credit", "2.50")
    right = tilewire("accounts", "audit")
    assert right.exit_code == 0
    assert right.stdout.startswith("the books are right: accounts 1, ledger entries 1, charges 0")
    database = Database(f"sqlite:///{tmp_path / 'data' / 'tilewire.db'}")
    database.run_sync(lambda connection: connection.execute(update(accounts).values(balance=1)))
    database.close()
    wrong = tilewire("accounts", "audit")
    assert (wrong.exit_code, wrong.stdout) == (1, "")
    assert "account 'ada': balance is kept as 1" in wrong.stderr


@pytest.mark.parametrize("credit", ["much", "-1", "0", "nan", "inf", "0.00000000001", "1e400000"])
def test_a_wrong_credit_makes_no_key(tilewire: Tilewire, credit: str) -> None:
    result = tilewire("keys", "create", f"--credit={credit}")
    assert (result.exit_code, result.stdout) == (2, "")
    assert credit in result.stderr
    assert len(tilewire("keys", "list").stdout.splitlines()) == 1


def test_models_are_listed_whole_in_80_columns(tilewire: Tilewire) -> None:
    shown = tilewire("models", "list").stdout
    assert max(map(len, shown.splitlines())) <= 80
    for model in load_catalogue():
        assert re.search(rf"^{re.escape(model.name)} ", shown, re.MULTILINE)
        assert model.air in shown
        assert model.title in shown
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
    file.write_text('port = 9001\nprices = {"realesrgan-x4plus" = 0.0013}\nmodels = ["a", "b"]')
    secrets = {"TILEWIRE_API_KEY": "tw_hidden", "TILEWIRE_DATABASE_URL": "postgresql://me:secret@db/x"}
    shown = tilewire("config", file, **secrets).stdout
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


def test_help_is_shown_for_every_command(tilewire: Tilewire) -> None:
    listed = tilewire("-h").stdout.partition("Commands:\n")[2].splitlines()
    assert "..." not in "".join(listed), "each is explained whole in 80 columns"
    names = [line.split()[0] for line in listed]
    assert {"serve", "upscale", "models", "keys", "accounts", "bench", "top", "config"} <= set(names)
    for command in [*([name] for name in names), ["keys", "create"]]:
        shown = tilewire(*command, "-h").stdout
        assert "Usage" in shown
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
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY
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
            text=True,
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


def test_the_first_start_makes_a_key_and_shows_it_once(tmp_path: Path, model_directory: Path) -> None:
    with serving(tmp_path, model_directory, TILEWIRE_API_KEY="") as server:
        (key,) = re.findall(r"tw_[\w-]{43}", server.announced)
    with serving(tmp_path, model_directory, TILEWIRE_API_KEY="") as server:
        assert "tw_" not in server.announced
    database = Database(f"sqlite:///{tmp_path / 'tilewire.db'}")
    assert database.run_sync(authenticate, key, 0.0) is not None
    database.close()
