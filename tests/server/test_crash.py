"""The central promise: what was accepted gets one outcome and is charged once, whenever a server is killed.

    pytest -s -m slow tests/server/test_crash.py --seed 2

prints the figures. Another seed makes other customers, and other moments to kill a server at.
"""

from contextlib import ExitStack
from pathlib import Path

import pytest
from rich.console import Console

from onnx_models import Catalogue
from server.commands.building import build_missing
from tests.server.conftest import settings_for
from tests.server.support.crash import SETTINGS, Report, crash, judge, run_of
from tests.server.support.harness import FAST_MODEL
from tests.server.support.killable import KillableServer, killed_at_last
from tests.server.support.postgresql import PostgreSQL
from tests.server.support.process import reserved_port
from tests.server.support.web import Web

PHASES = {"starting", "accepted", "reserved, at work", "storing", "recorded, not delivered"}


@pytest.fixture
def fast_model(model_directory: Path, catalogue: Catalogue) -> None:
    build_missing([catalogue.get(FAST_MODEL)], model_directory, Console(quiet=True))


async def crash_and_judge(
    data: Path,
    model_directory: Path,
    web: Web,
    kills: int,
    seed: int,
    servers: int = 1,
    database_url: str | None = None,
) -> Report:
    print(f"\nseed {seed}")
    log = data / "log"
    database_url = database_url or f"sqlite:///{data / 'tilewire.db'}"
    with ExitStack() as stack:
        running = [
            KillableServer(
                settings_for(
                    data,
                    model_directory,
                    port=stack.enter_context(reserved_port()),
                    database_url=database_url,
                    decoders=1,
                    **SETTINGS,
                ),
                log,
            )
            for _ in range(servers)
        ]
        stack.enter_context(killed_at_last(*running))
        urls = [server.url for server in running]
        run = run_of(urls, web, seed, database_url=database_url, data=data)
        await crash(run, running, kills, seed)
        report = await judge(run, running[0].url)
        for server in running:
            server.stop()
    assert "Traceback" not in log.read_text("utf-8"), log.read_text("utf-8")
    print(report)
    return report


@pytest.mark.usefixtures("fast_model", "pictures")
async def test_nothing_is_lost_or_charged_twice_when_a_server_is_killed(
    tmp_path: Path, model_directory: Path, web: Web, seed: int
) -> None:
    report = await crash_and_judge(tmp_path, model_directory, web, 5, seed)
    assert report.kills["all"] == 5


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("fast_model", "pictures")
async def test_nothing_is_lost_or_charged_twice_in_200_kills(
    tmp_path: Path, model_directory: Path, web: Web, seed: int
) -> None:
    report = await crash_and_judge(tmp_path, model_directory, web, 200, seed)
    assert report.kills["all"] == 200
    assert report.kills.keys() >= PHASES


@pytest.mark.slow
@pytest.mark.usefixtures("fast_model", "pictures")
async def test_nothing_is_lost_or_charged_twice_when_one_of_two_servers_is_killed(
    tmp_path: Path, model_directory: Path, web: Web, seed: int, postgresql: PostgreSQL
) -> None:
    url = postgresql.new_database()
    await crash_and_judge(tmp_path, model_directory, web, 2, seed, servers=2, database_url=url)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("fast_model", "pictures")
async def test_nothing_is_lost_or_charged_twice_when_two_servers_are_killed_20_times(
    tmp_path: Path, model_directory: Path, web: Web, seed: int, postgresql: PostgreSQL
) -> None:
    url = postgresql.new_database()
    report = await crash_and_judge(tmp_path, model_directory, web, 20, seed, servers=2, database_url=url)
    assert report.kills["all"] == 20
