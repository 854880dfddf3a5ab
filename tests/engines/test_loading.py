"""Models on their first use: loaded once, beside all other work, and refused for a while if that fails."""

import asyncio
import gc
import threading
from dataclasses import dataclass, field

import numpy as np
import pytest

from engines import ModelError, Picture, Upscaler
from engines.loading import LoadedModels, Loads
from engines.scheduling.executor import Executor
from engines.threads import Threads
from tests.engines.support.fake_device import WAIT, FakeDevice


@dataclass
class Opening:
    """Loads something when the test lets it."""

    error: Exception | None = None
    calls: int = 0
    begun: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)

    def __call__(self):
        self.calls += 1
        self.begun.set()
        assert self.go.wait(WAIT)
        if self.error is not None:
            raise self.error
        return "loaded"


@pytest.fixture
def loads(clock):
    threads = Threads(2, "loads")
    yield Loads(threads, clock)
    threads.close()


def test_all_who_want_something_wait_for_one_load_of_it(loads):
    opening = Opening()
    wanted = [loads.get(("model", "4x"), opening) for _ in range(3)]
    assert loads.ready == {}
    opening.go.set()
    assert {load.result(WAIT) for load in wanted} == {"loaded"}
    assert opening.calls == 1
    assert loads.ready == {("model", "4x"): "loaded"}


def test_what_cannot_be_loaded_is_refused_for_a_minute_and_tried_again_then(loads, clock):
    opening = Opening(ModelError("it is broken"))
    opening.go.set()
    for now in (0, 30, 59):
        clock.now = now
        assert str(loads.get(("model", "4x"), opening).exception(WAIT)) == "it is broken"
    assert opening.calls == 1
    clock.now = 60
    opening.error = None
    assert loads.get(("model", "4x"), opening).result(WAIT) == "loaded"


@pytest.fixture
def device():
    return FakeDevice(scale=4, largest_batch=1)


@pytest.fixture
def executor(device):
    executor = Executor([device])
    yield executor
    device.go.set()
    executor.close()


@pytest.fixture
def models(executor, model_directory, clock):
    models = LoadedModels(executor, model_directory, Threads(1, "pixels"), clock)
    yield models
    executor.close()
    models.close()


@pytest.fixture
def fast(catalogue):
    return catalogue.get("realesr-animevideov3")


def opened_by(device, opening):
    device.open = lambda _network: opening() and FakeDevice(scale=4).open(_network)


async def test_loads_leave_the_threads_alone_that_other_work_shares(models, device, fast, catalogue):
    opening = Opening()
    opened_by(device, opening)
    models_of = [fast, catalogue.get("realesrgan-x4plus-anime")]
    waiting = [
        asyncio.create_task(models.network(model, model.weights_for(4)))
        for model in models_of
        for _ in range(40)
    ]
    assert await asyncio.to_thread(opening.begun.wait, WAIT)
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "at once"), WAIT) == "at once"
    opening.go.set()
    assert len(set(await asyncio.gather(*waiting))) == 2


async def test_who_gives_up_waiting_leaves_the_load_to_the_others(models, device, fast):
    opening = Opening()
    opened_by(device, opening)
    first, second = (asyncio.create_task(models.network(fast, fast.weights_for(4))) for _ in range(2))
    await asyncio.to_thread(opening.begun.wait, WAIT)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    opening.go.set()
    assert (await second).scale == 4
    assert opening.calls == 1


async def test_requests_for_a_model_that_cannot_be_loaded_cost_no_time_of_the_device(
    models, device, fast, clock
):
    opening = Opening(ModelError("there is no such layer"))
    opened_by(device, opening)
    opening.go.set()
    seen = set()
    for _ in range(40):
        with pytest.raises(ModelError, match="there is no such layer") as raised:
            await models.network(fast, fast.weights_for(4))
        seen.add(id(raised.value))
        assert len(list(_frames(raised.value))) < 10
    assert opening.calls == 1
    clock.now = 60
    opening.error = None
    assert (await models.network(fast, fast.weights_for(4))).scale == 4


def _frames(error):
    frame = error.__traceback__
    while frame is not None:
        yield frame
        frame = frame.tb_next


async def test_a_failure_that_nobody_waits_for_any_longer_is_not_reported(models, device, fast):
    raised = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    opening = Opening(ModelError("it is broken"))
    opened_by(device, opening)
    waiting = asyncio.create_task(models.network(fast, fast.weights_for(4)))
    await asyncio.to_thread(opening.begun.wait, WAIT)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    opening.go.set()
    with pytest.raises(ModelError):
        await models.network(fast, fast.weights_for(4))
    gc.collect()
    assert raised == []


async def test_a_model_that_is_wanted_after_the_end_is_a_model_error(device, fast, model_directory):
    upscaler = Upscaler([device], model_directory)
    await asyncio.to_thread(upscaler.close)
    with pytest.raises(ModelError, match="shutting down"):
        await upscaler.upscale(Picture(np.zeros((8, 8, 3), np.uint8)), fast, width=32, height=32)
