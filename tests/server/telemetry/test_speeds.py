"""How fast models are, as their tasks tell."""

from typing import Any

import pytest

from server.serving import EmbeddedServer
from server.telemetry.speeds import Speeds
from server.telemetry.story import Story, Subject, Timed
from tests.server.conftest import StartServer
from tests.server.support.harness import connected, make_image, new_uuid, upload, upscale


class Nobody:
    def stage_ended(self, *_: object) -> None:
        pass

    task_ended = story_ended = stage_ended


def story(pixels: int, **stages: float) -> Story:
    told = Story(Subject("task", "account", None, "model"), Nobody())
    told.stages = [Timed(stage, 0.0, seconds) for stage, seconds in stages.items()]
    told.output_pixels, told.outcome = pixels, "succeeded"
    return told


def test_the_median_counts_without_waiting_failures_and_icons() -> None:
    speeds = Speeds()
    assert speeds.seconds_per_megapixel("model") is None
    for seconds in (1.0, 2.0, 90.0):
        speeds.task_ended(story(2_000_000, decode=seconds, inference=seconds, queue=1000.0, admission=1000.0))
    speeds.task_ended(story(100, inference=1.0))
    failed = story(2_000_000, inference=1000.0)
    failed.outcome = "failed"
    speeds.task_ended(failed)
    assert speeds.seconds_per_megapixel("model") == pytest.approx(2.0)
    assert speeds.seconds_per_megapixel("other") is None


async def test_model_search_tells_what_tasks_took(start_server: StartServer) -> None:
    server: EmbeddedServer = start_server()
    search = {"taskType": "modelSearch", "search": "animevideov3"}

    async def speeds(peer: Any) -> list[float | None]:
        (found,) = await peer.ask(search | {"taskUUID": new_uuid()})
        return [model.get("secondsPerMegapixel") for model in found["results"]]

    uploaded = await upload(server, make_image(120, 90))
    async with connected(server) as peer:
        assert await speeds(peer) == [None]
        await peer.ask(upscale(uploaded["imageUUID"], upscaleFactor=4))
        (speed,) = await speeds(peer)
        assert speed is not None
        assert speed > 0
        await peer.ask(upscale(uploaded["imageUUID"], upscaleFactor=8))  # in two passes
        assert await speeds(peer) == [speed]
