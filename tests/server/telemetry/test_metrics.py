"""`/metrics`: what is told, and to whom."""

import base64
import math
from dataclasses import replace

import pytest

from engines import Activity, DeviceActivity, Memory, RunKind, Waiting
from server.protocol.error_codes import error_label
from server.protocol.errors import DatabaseUnavailableError
from server.serving import EmbeddedServer
from server.state import ledger
from server.state.records import Attempt
from server.telemetry.metrics import Metrics, Snapshot
from tests.server.conftest import StartServer
from tests.server.support.harness import (
    FAST_MODEL,
    connected,
    make_image,
    new_uuid,
    open_account,
    request,
    upscale,
)
from tests.server.support.scrape import labels, metrics_of, scrape, until
from tests.server.support.web import Web

IMAGE = base64.b64encode(make_image(24, 16)).decode()


async def test_a_task_is_counted_where_it_passes(start_server: StartServer) -> None:
    server = start_server()
    account = open_account(server)
    async with connected(server, key=account.key) as peer:
        (result,) = await peer.ask(upscale(IMAGE))
        assert "imageURL" in result
        metrics = await until(server, lambda found: found["tilewire_stage_seconds_count{stage=deliver}"] == 1)
        assert (metrics["tilewire_sockets"], metrics["tilewire_sessions"]) == (1, 1)
    of_model = labels(model=FAST_MODEL)
    assert (
        metrics["tilewire_tasks_total" + labels(model=FAST_MODEL, service="runware", outcome="succeeded")]
        == 1
    )
    assert metrics["tilewire_task_seconds_count" + of_model] == 1
    assert metrics["tilewire_output_pixels_total" + of_model] == (24 * 2) * (16 * 2)
    charged, _ = server.services.database.run_sync(ledger.spent, account.id)
    assert metrics["tilewire_charged_usd_total"] == pytest.approx(charged / 1e9)
    assert charged > 0
    for stage in ("fetch", "admission", "decode", "queue", "inference", "encode", "store"):
        assert metrics[f"tilewire_stage_seconds_count{{stage={stage}}}"] == 1
    (device,) = server.services.upscaler.devices
    on_device = labels(device=device.name, model=FAST_MODEL)
    assert metrics["tilewire_device_tiles_total" + on_device] == 1
    border = 2 * 4  # continued on both sides
    assert metrics["tilewire_device_pixels_total" + on_device] == (24 + border) * 2 * (16 + border) * 2
    assert metrics["tilewire_batch_fill_ratio_count" + on_device] == 1
    assert metrics["tilewire_device_up" + labels(device=device.name)] == 1
    assert metrics["tilewire_device_busy_seconds_total" + labels(device=device.name)] > 0
    assert metrics["tilewire_event_loop_lag_seconds_count"] > 0
    assert metrics["process_resident_memory_bytes"] > 10**7
    assert not [name for name in metrics if account.id in name or name.endswith("_created")]
    await until(server, lambda found: found["tilewire_sockets"] == found["tilewire_sessions"] == 0)


async def test_what_waits_is_told_while_it_waits(start_server: StartServer, web: Web) -> None:
    server = start_server(private_networks=True)
    task = upscale(web.hold("/held.png", make_image()))
    async with connected(server, session=new_uuid()) as peer:
        await peer.send(task)
        await web.receive()
        assert (await metrics_of(server))["tilewire_unfinished_tasks"] == 1
        await peer.cut()
    web.release("/held.png")
    metrics = await until(server, lambda found: found["tilewire_outbox_replies"] == 1)
    assert metrics["tilewire_unfinished_tasks"] == 0
    assert metrics["tilewire_stage_seconds_count{stage=deliver}"] == 0  # nobody was there


async def test_money_is_told_as_reserved_until_it_is_charged(server: EmbeddedServer) -> None:
    run, account = server.services.database.run_sync, open_account(server)
    before = (await metrics_of(server))["tilewire_reserved_usd"]
    attempt = Attempt.of(account.id, new_uuid())
    assert run(ledger.reserve, attempt, 2_000_000, 0.0)
    assert (await metrics_of(server))["tilewire_reserved_usd"] == pytest.approx(before + 0.002)
    run(ledger.release, attempt, 2_000_000, 0.0)
    assert (await metrics_of(server))["tilewire_reserved_usd"] == pytest.approx(before)


async def test_failed_and_cancelled_tasks_are_told_apart(start_server: StartServer, web: Web) -> None:
    server = start_server(private_networks=True)
    held, failing = upscale(web.hold("/held.png", make_image())), upscale(f"{web.url}/none.png")
    async with connected(server) as peer:
        await peer.ask(failing)
        await web.receive()
        await peer.send(held)
        await web.receive()
        cancel = {"taskType": "cancel", "taskUUID": new_uuid(), "targetTaskUUID": held["taskUUID"]}
        await peer.send(cancel)
        replies = [await peer.receive_item() for _ in range(2)]
        assert {item.get("code", item.get("status")) for item in replies} == {"taskCancelled", "cancelled"}
    metrics = await metrics_of(server)
    for outcome in ("failed", "cancelled"):
        assert (
            metrics["tilewire_tasks_total" + labels(model=FAST_MODEL, service="runware", outcome=outcome)]
            == 1
        )
    assert metrics["tilewire_errors_total{code=downloadFailed}"] == 1
    assert metrics["tilewire_errors_total{code=taskCancelled}"] == 1


async def test_names_that_clients_choose_do_not_become_labels(start_server: StartServer) -> None:
    server = start_server()
    async with connected(server) as peer:
        for name in ("one", "other"):
            await peer.ask(upscale(IMAGE, settings={name: 1}))
        await peer.socket.send("no JSON")
        await peer.receive()
    metrics = await metrics_of(server)
    assert {name for name in metrics if name.startswith("tilewire_errors")} == {
        "tilewire_errors_total{code=unsupportedParameter}",
        "tilewire_errors_total{code=invalidFrame}",
    }
    assert metrics["tilewire_errors_total{code=unsupportedParameter}"] == 2
    assert error_label("nonsense") == "other"


async def test_a_proxy_of_this_machine_does_not_open_the_metrics_to_others(server: EmbeddedServer) -> None:
    assert (await scrape(server))[0] == 200
    for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"):
        status, text = await scrape(server, {header: "127.0.0.1"})
        assert status == 403
        assert 'metrics = "open"' in text


async def test_no_page_sees_the_metrics_whatever_name_it_has_for_this_machine(
    server: EmbeddedServer,
) -> None:
    port = server.url.rpartition(":")[2]
    for host, status in (
        ("evil.example", 403), (f"evil.example:{port}", 403), ("127.0.0.1.evil.example", 403),
        ("localhost", 200), (f"localhost:{port}", 200), (f"[::1]:{port}", 200),
    ):  # fmt: skip
        assert (await scrape(server, {"Host": host}))[0] == status, host
    reply = await request(f"{server.url}/metrics", Origin="https://evil.example")
    assert reply.status == 200
    assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize(("setting", "status"), [("open", 200), ("off", 404)])
async def test_the_metrics_can_be_open_or_off(start_server: StartServer, setting: str, status: int) -> None:
    assert (await scrape(start_server(metrics=setting), {"X-Forwarded-For": "192.0.2.1"}))[0] == status


SNAPSHOT = Snapshot(
    activity=Activity(
        devices=(
            DeviceActivity(
                name="CUDA 0",
                usable=False,
                busy_seconds=2.5,
                runs={RunKind("m", 1, 8): 3, RunKind("m", 8, 8): 2, RunKind("m", 9, 8): 1},
                pixels={"m": 100},
                memory=Memory(used=3, size=8),
            ),
        ),
        waiting={"m": Waiting(tiles=5, tasks=2)},
    ),
    tasks=1,
    sockets=2,
    sessions=1,
    unsent_bytes=7,
    incoming=(8, 9),
    outgoing=(10, 11),
    outbox=None,
    webhooks=None,
    reserved=None,
)


def told(snapshot: Snapshot) -> list[str]:
    return [line for line in Metrics().render(snapshot).decode().splitlines() if not line.startswith("#")]


def test_a_snapshot_is_told_as_it_is() -> None:
    lines = told(SNAPSHOT)
    assert 'tilewire_queue_tiles{model="m"} 5.0' in lines
    assert 'tilewire_queue_tasks{model="m"} 2.0' in lines
    assert 'tilewire_device_up{device="CUDA 0"} 0.0' in lines
    assert 'tilewire_device_busy_seconds_total{device="CUDA 0"} 2.5' in lines
    assert 'tilewire_device_memory_used_bytes{device="CUDA 0"} 3.0' in lines
    assert 'tilewire_device_tiles_total{device="CUDA 0",model="m"} 28.0' in lines
    fill = [line for line in lines if line.startswith("tilewire_batch_fill_ratio_bucket")]
    assert [float(line.split()[-1]) for line in fill] == [3, 3, 3, 3, 6, 6]
    assert math.isclose(
        next(float(line.split()[-1]) for line in lines if "fill_ratio_sum" in line), 3 / 8 + 2 + 1
    )


def test_without_the_database_the_rest_is_told() -> None:
    lines = told(SNAPSHOT)
    assert not [line for line in lines if "outbox" in line or "webhooks" in line or "reserved" in line]
    with_it = told(replace(SNAPSHOT, outbox=4, webhooks=3, reserved=2_000_000))
    assert set(with_it) - set(lines) >= {
        "tilewire_outbox_replies 4.0",
        "tilewire_pending_webhooks 3.0",
        "tilewire_reserved_usd 0.002",
    }


async def test_a_database_that_cannot_be_used_takes_only_its_own_figures_along(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise DatabaseUnavailableError

    monkeypatch.setattr(server.services.database, "run", fail)
    metrics = await metrics_of(server)
    assert "tilewire_sockets" in metrics
    assert "tilewire_outbox_replies" not in metrics


async def test_webhooks_are_pending_until_somebody_takes_them(start_server: StartServer, web: Web) -> None:
    server = start_server(private_networks=True)
    async with connected(server) as peer:
        await peer.ask(upscale(IMAGE, webhookURL=web.hold("/hook")))
    await web.receive()
    assert (await metrics_of(server))["tilewire_pending_webhooks"] == 1
    web.release("/hook")
    await until(server, lambda found: found["tilewire_pending_webhooks"] == 0)
