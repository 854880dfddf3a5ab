"""What the server is made of is closed in the end, whatever else happens."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engines import Decoders, Upscaler
from onnx_models import UnknownModelError
from server.delivery.previews import TileStreams
from server.delivery.sessions import Sessions
from server.images.bucket import Bucket
from server.outbound.fetch import WebClient
from server.services import running_services
from server.state.database import Database
from server.telemetry.metrics import Metrics
from server.telemetry.telemetry import Telemetry
from tests.server.conftest import settings_for

PARTS = (Database, Bucket, WebClient, TileStreams, Decoders, Upscaler, Sessions)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[type]:
    """The parts that were closed, in order."""
    found: list[type] = []

    def watch(part: type, close: Callable[..., Any]) -> Callable[..., Any]:
        def watched(self: Any) -> Any:
            found.append(part)
            return close(self)

        return watched

    for part in PARTS:
        monkeypatch.setattr(part, "close", watch(part, part.close))
    return found


def telemetry() -> Telemetry:
    return Telemetry(Metrics(), None)


async def test_a_part_that_fails_to_close_leaves_no_other_open(
    tmp_path: Path, model_directory: Path, closed: list[type], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Sessions.close

    async def fail(self: Sessions) -> None:
        await real(self)
        raise OSError("no")

    monkeypatch.setattr(Sessions, "close", fail)
    with pytest.raises(OSError, match="no"):
        async with running_services(settings_for(tmp_path, model_directory), "http://here", telemetry()):
            assert closed == []
    assert set(closed) == set(PARTS)


async def test_what_was_opened_is_closed_if_the_next_cannot_be(
    tmp_path: Path, model_directory: Path, closed: list[type], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(tmp_path, model_directory, models=("no-such-model",))
    with pytest.raises(UnknownModelError):
        async with running_services(settings, "http://here", telemetry()):
            pass
    assert set(closed) == set(PARTS)
    closed.clear()

    def fail(*_: object) -> None:
        raise OSError("no devices")

    monkeypatch.setattr("server.services.find_devices", fail)
    with pytest.raises(OSError, match="no devices"):
        async with running_services(settings, "http://here", telemetry()):
            pass
    assert closed == [Decoders, TileStreams, WebClient, WebClient, WebClient, Bucket, Database]
