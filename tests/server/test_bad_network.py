"""Whatever the network does to the streams, each task has one outcome, told, and charged once."""

import asyncio
import base64
import ssl
from decimal import Decimal
from pathlib import Path

import pytest

from server.state.audit import audit
from tests.server.conftest import StartServer
from tests.server.support.certificate import make_certificate
from tests.server.support.crash import SETTINGS, SOME_TASKS, judge, run_of, work_through
from tests.server.support.harness import connected, make_image, new_uuid, open_account, upscale
from tests.server.support.network import Faults, Network, running_network, to_url
from tests.server.support.web import Web

pytestmark = pytest.mark.usefixtures("pictures")

_LOST_AFTER = 2
"""Seconds after which a peer whose words were spoilt takes them for lost."""


@pytest.mark.parametrize(
    "faults",
    [
        Faults(cut_within=8_000),
        Faults(end_within=8_000),
        Faults(delay=0.03),
        Faults(bytes_per_second=50_000, cut_within=40_000),
    ],
    ids=["cut", "half-closed", "delayed", "throttled and cut"],
)
async def test_clients_get_every_result_over_a_bad_network(
    start_server: StartServer, tmp_path: Path, web: Web, faults: Faults, seed: int
) -> None:
    server = start_server(**SETTINGS)
    url = server.services.settings.effective_database_url
    with running_network(to_url(server.url), seed) as network:
        network.faults = faults
        run = run_of([network.url], web, seed, database_url=url, data=tmp_path)
        await work_through(run, network)
    report = await judge(run, server.url)
    assert report.accepted >= SOME_TASKS // 4  # what cannot be paid leaves no record
    if faults.cut_within:
        assert network.cuts > 0
    if faults.end_within:
        assert network.ends > 0


async def test_a_bit_that_flips_under_tls_ends_the_connection_and_is_never_taken_for_a_result(
    start_server: StartServer, tmp_path: Path, web: Web, seed: int
) -> None:
    certificate, key = make_certificate(tmp_path)
    tls = ssl.create_default_context(cafile=certificate)
    server = start_server(**SETTINGS, tls_certificate=certificate, tls_key=key)
    database = server.services.settings.effective_database_url
    with running_network(to_url(server.url), seed) as network:
        network.faults = Faults(flips=0.05)
        url = f"https://127.0.0.1:{network.port}"
        run = run_of([url], web, seed, database_url=database, data=tmp_path, tls=tls)
        await work_through(run, network)
    await judge(run, server.url)
    assert network.flips > 0
    assert network.connections > network.flips / 2


async def test_without_tls_flipped_bits_do_the_server_no_harm(start_server: StartServer, seed: int) -> None:
    """Nothing but TLS notices one letter that became another; what is broken is refused."""
    server = start_server(**SETTINGS)
    account = open_account(server, Decimal(1))
    async with connected(server, key=account.key) as peer:
        upload = {
            "taskType": "imageUpload",
            "taskUUID": new_uuid(),
            "image": base64.b64encode(make_image()).decode(),
        }
        image = (await peer.ask(upload))[0]["imageUUID"]

    async def talk(network: Network) -> None:
        async with asyncio.timeout(_LOST_AFTER), connected(network, key=account.key) as peer:
            await peer.ask(upscale(image), upscale(image))

    with running_network(to_url(server.url), seed) as network:
        network.faults = Faults(flips=0.5)
        talks = (talk(network) for _ in range(100))
        ends = await asyncio.gather(*talks, return_exceptions=True)
    assert any(end is not None for end in ends)
    assert network.flips >= 20
    async with connected(server, key=account.key) as peer:
        assert "imageURL" in (await peer.ask(upscale(image)))[0]
    assert server.services.database.snapshot(audit).mistakes == []
