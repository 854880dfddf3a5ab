"""A real server on a free port, with real models; a database; a web server for it to talk to."""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpcore
import pytest
from typer.testing import CliRunner, Result

from engines.codecs.decoder import Decoder
from engines.codecs.decoder_pool import Decoders
from server.cli import app
from server.serving import EmbeddedServer
from server.settings import Settings
from server.state.database import Database
from tests.server.support.customers import PICTURES
from tests.server.support.harness import KEY, RUNTIME
from tests.server.support.postgresql import PostgreSQL, programs, running_postgresql
from tests.server.support.process import environment
from tests.server.support.stepped_device import SteppedDevice, stepped_device
from tests.server.support.web import Web, running_web

StartServer = Callable[..., EmbeddedServer]
Tilewire = Callable[..., Result]


@cache
def empty_tables() -> bytes:
    """A SQLite database with this version's tables: to make them takes longer than all else of a start."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "empty.db"
        Database(f"sqlite:///{file}").close()
        return file.read_bytes()


def settings_for(data: Path, model_directory: Path, **changes: Any) -> Settings:
    """What an embedded server has in the tests, with the tables of a new data directory made already."""
    if changes.get("database_url") is None and not (file := data / "tilewire.db").exists():
        data.mkdir(parents=True, exist_ok=True)
        file.write_bytes(empty_tables())
        file.chmod(0o600)
    defaults: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": 0,
        "data": data,
        "model_directory": model_directory,
        "api_key": KEY,
        "device": "cpu",
        "runtime": RUNTIME,
        "models": (),
        "decoders": 1,
    }
    return Settings(**defaults | changes)


@pytest.fixture(scope="session", autouse=True)
def _decoders_serve_again() -> Iterator[None]:
    """The decoder of a server that has stopped serves the next, which takes half as long to start then."""
    starter = ThreadPoolExecutor(1)  # a decoder ends with the thread that started it
    idle: defaultdict[tuple[str, ...], list[Decoder]] = defaultdict(list)
    close = Decoders.close

    def kept_or_new(command: Sequence[str]) -> Decoder:
        kept = idle[tuple(command)]
        return kept.pop() if kept else starter.submit(Decoder, command).result()

    def keep_and_close(pool: Decoders) -> None:
        with pool._lock:
            kept = [decoder for decoder in pool._idle if decoder.fit]
            pool._decoders.difference_update(kept)
            pool._idle.clear()
        idle[tuple(pool._command)] += kept
        close(pool)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Decoders, "close", keep_and_close)
        patch.setattr("engines.codecs.decoder_pool.Decoder", kept_or_new)
        yield
    for decoder in chain.from_iterable(idle.values()):
        decoder.end()
    starter.shutdown()


@pytest.fixture(scope="session", autouse=True)
def _certificates_are_read_once() -> Iterator[None]:
    """Those that the system trusts, instead of at the start of each server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpcore, "default_ssl_context", cache(httpcore.default_ssl_context))
        yield


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests that are marked `each_database` with each."""
    if metafunc.definition.get_closest_marker("each_database"):
        for fixture, scope in (("server", "module"), ("server_database", "function")):
            if fixture in metafunc.fixturenames:
                metafunc.parametrize(fixture, ["sqlite", "postgresql"], indirect=True, scope=scope)


@pytest.fixture(autouse=True)
def _no_handler_is_left() -> Iterator[None]:
    """A command that ran within the test logs to its output, which ends with it."""
    before = logging.root.handlers[:]
    yield
    for handler in logging.root.handlers[:]:
        if handler not in before:
            logging.root.removeHandler(handler)


@pytest.fixture(scope="module")
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, model_directory: Path
) -> Iterator[EmbeddedServer]:
    """A server with default settings, but those of the module's mark `settings`; shared by its tests."""
    mark = request.node.get_closest_marker("settings")
    changes = {"database_url": database_url(request)} | (mark.kwargs if mark else {})
    with EmbeddedServer(
        settings_for(tmp_path_factory.mktemp("server"), model_directory, **changes)
    ) as running:
        yield running


@pytest.fixture
def server_database(request: pytest.FixtureRequest) -> str | None:
    """What the servers of a test have as `database_url`."""
    return database_url(request)


def database_url(request: pytest.FixtureRequest) -> str | None:
    """A new PostgreSQL database if the fixture is asked for one; else none, for SQLite."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return None
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.new_database()


@pytest.fixture
def start_server(tmp_path: Path, model_directory: Path, server_database: str | None) -> Iterator[StartServer]:
    """Starts servers with settings of their own, all on the same data; they stop with the test."""
    with ExitStack() as stack:
        yield lambda **changes: stack.enter_context(
            EmbeddedServer(
                settings_for(tmp_path, model_directory, **{"database_url": server_database} | changes)
            )
        )


@pytest.fixture
def device(start_server: StartServer) -> Iterator[SteppedDevice]:
    """What `start_server` has servers run on; it is let go before they stop, who wait for it."""
    with stepped_device() as device:
        yield device


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server, for all tests."""
    folder = programs()
    if folder is None:
        pytest.skip("PostgreSQL is not installed: neither in PATH nor in /usr/lib/postgresql")
    with running_postgresql(folder) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without any tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state.db'}"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.empty_database()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without any accounts: SQLite in a file, and PostgreSQL."""
    if request.param == "sqlite":
        (tmp_path / "state.db").write_bytes(empty_tables())
        database = Database(f"sqlite:///{tmp_path / 'state.db'}")
    else:
        database = Database(request.getfixturevalue("postgresql").new_database())
    yield database
    database.close()


@pytest.fixture
def web() -> Iterator[Web]:
    """A web server that is not ours; servers reach it with `private_networks=True`."""
    with running_web() as web:
        yield web


@pytest.fixture
def pictures(web: Web) -> None:
    """What customers enlarge, in the web."""
    web.files |= {f"/{number}.png": data for number, data in enumerate(PICTURES)}


@pytest.fixture
def tilewire(tmp_path: Path, model_directory: Path) -> Tilewire:
    """Runs a command, in this process; whatever happens, no traceback is shown."""

    def run(*arguments: object, **more: str) -> Result:
        env = environment(tmp_path / "data", model_directory, **more)
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], env=env)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        return result

    return run
