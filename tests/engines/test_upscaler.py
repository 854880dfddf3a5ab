"""Pictures through the real networks, on the CPU; and what happens when something goes wrong."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from engines import (
    DeviceOutOfMemoryError,
    Metadata,
    ModelError,
    Picture,
    Upscaler,
    decode,
    find_devices,
    resize,
)
from engines.devices.sessions import Network
from engines.scheduling.calibration import Calibration
from tests.engines.support.fake_device import WAIT, FakeDevice, lost

# Its results do not depend on where in a tile a pixel is, as those of Winograd convolutions do.
CPU = find_devices("cpu", "onnxruntime")
PHOTOGRAPH = Path(__file__).parent.parent / "images" / "cat.jpg"


@pytest.fixture(autouse=True)
def _no_measuring(monkeypatch):
    """Batches are as large as a device takes."""
    monkeypatch.setattr(Calibration, "batch", lambda _self, device, *_: device.largest_batch)


class GatedSession:
    """Runs each batch only when the gate is open, and notes how large it was; the first run is the probe."""

    def __init__(self, session, device):
        self.session, self.device, self.probed = session, device, False

    def run(self, tiles):
        if self.probed:
            self.device.began.set()
            assert self.device.gate.wait(WAIT)
            self.device.batches.append(len(tiles))
        self.probed = True
        return self.session.run(tiles)

    def release_memory(self):
        self.session.release_memory()


class GatedDevice:
    """The CPU, with a gate before each run."""

    name = kind = "gated"

    def __init__(self, largest_batch=1):
        self.largest_batch = largest_batch
        self.gate, self.began, self.batches = threading.Event(), threading.Event(), []

    def memory_use(self):
        return None

    def open(self, network):
        return GatedSession(CPU[0].open(network), self)


@pytest.fixture(scope="module")
def upscaler(model_directory):
    upscaler = Upscaler(CPU, model_directory)
    yield upscaler
    upscaler.close()


@pytest.fixture
def gated(model_directory, request):
    """An upscaler whose device waits for `device.gate`."""
    upscaler = Upscaler([GatedDevice(getattr(request, "param", 1))], model_directory)
    yield upscaler
    upscaler.devices[0].gate.set()
    upscaler.close()


@pytest.fixture(scope="module")
def fast(catalogue):
    return catalogue.get("realesr-animevideov3")


def photograph(height, width):
    pixels = decode(PHOTOGRAPH.read_bytes(), max_pixels=10**6).pixels
    return Picture(pixels=np.ascontiguousarray(pixels[60 : 60 + height, 120 : 120 + width]))


def with_tile(model, tile):
    return msgspec.structs.replace(model, tile=tile)


async def enlarged(upscaler, picture, model, factor=4, **options):
    width, height = round(picture.width * factor), round(picture.height * factor)
    return await upscaler.upscale(picture, model, width=width, height=height, **options)


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2))


async def test_a_picture_in_tiles_equals_the_picture_upscaled_whole(upscaler, fast):
    picture = photograph(150, 201)
    whole = await enlarged(upscaler, picture, fast)
    tiled = await enlarged(upscaler, picture, with_tile(fast, 96))
    assert np.array_equal(tiled.pixels, whole.pixels)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 37), (2, 3), (7, 31)])
async def test_odd_and_tiny_pictures_come_out_in_the_wanted_size(upscaler, fast, height, width):
    picture = photograph(height, width)
    result = await enlarged(upscaler, picture, fast)
    assert result.pixels.shape == (4 * height, 4 * width, 3)
    assert abs(result.pixels.mean() - picture.pixels.mean()) < 8


@pytest.mark.parametrize("factor", [1.5, 2, 2.5, 3])
@pytest.mark.parametrize("name", ["realesr-animevideov3", "realesrgan-x4plus-anime"])
async def test_every_factor_gives_the_same_picture_in_another_size(upscaler, catalogue, name, factor):
    model = catalogue.get(name)
    picture = photograph(32, 46)
    result = await enlarged(upscaler, picture, model, factor)
    largest = await enlarged(upscaler, picture, model)
    assert result.pixels.shape == (32 * factor, 46 * factor, 3)
    reduced = [resize(image.pixels, 46, 32) for image in (result, largest)]
    assert psnr(*reduced) > 30


async def test_width_and_height_need_not_keep_the_proportions(upscaler, fast):
    result = await upscaler.upscale(photograph(20, 30), fast, width=31, height=77)
    assert result.pixels.shape == (77, 31, 3)


async def test_profile_and_metadata_travel_with_the_picture(upscaler, fast):
    metadata = Metadata(exif=b"exif", xmp=b"xmp")
    result = await enlarged(upscaler, replace(photograph(8, 8), icc_profile=b"icc", metadata=metadata), fast)
    assert (result.icc_profile, result.metadata, result.alpha) == (b"icc", metadata, None)


def disc(hidden):
    """A white disc with soft edges on transparent ground, the hidden pixels of another colour."""
    y, x = np.mgrid[:60, :60]
    alpha = np.clip((20 - np.hypot(y - 29.5, x - 29.5)) * 128 + 128, 0, 255).astype(np.uint8)
    pixels = np.where(alpha[:, :, np.newaxis] > 0, np.uint8(255), np.uint8(hidden)).repeat(3, 2)
    return Picture(pixels=pixels, alpha=alpha)


@pytest.mark.parametrize("factor", [2, 2.5, 4])
async def test_hidden_colours_leave_no_fringe_around_what_is_visible(upscaler, fast, factor):
    result = await enlarged(upscaler, disc(hidden=0), fast, factor)
    alpha = result.alpha[:, :, np.newaxis] / 255
    assert (result.pixels * alpha + 255 * (1 - alpha)).min() > 250


@pytest.mark.parametrize("name", ["realesr-animevideov3", "realesrgan-x4plus-anime"])
async def test_what_is_opaque_stays_opaque_and_what_is_transparent_stays_transparent(
    upscaler, catalogue, name
):
    result = await enlarged(upscaler, disc(hidden=0), catalogue.get(name), 3)
    y, x = np.mgrid[:180, :180]
    distance = np.hypot(y - 89.5, x - 89.5)
    assert (result.alpha[distance < 50] == 255).all()
    assert (result.alpha[distance > 70] == 0).all()


async def test_a_picture_with_alpha_in_tiles_equals_the_picture_upscaled_whole(upscaler, fast):
    picture = replace(photograph(60, 130), alpha=photograph(60, 130).pixels[:, :, 0])
    whole = await enlarged(upscaler, picture, fast)
    tiled = await enlarged(upscaler, picture, with_tile(fast, 80))
    assert np.array_equal(tiled.pixels, whole.pixels)
    assert np.array_equal(tiled.alpha, whole.alpha)


async def test_progress_rises_with_each_tile_and_ends_in_one(upscaler, fast):
    shares = []
    await enlarged(upscaler, photograph(60, 130), with_tile(fast, 56), on_progress=shares.append)
    assert len(shares) > 5
    assert shares == sorted(set(shares))
    assert shares[-1] == 1


async def test_a_progress_callback_that_raises_does_not_stop_the_upscale(upscaler, fast):
    raised = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context["exception"]))

    def on_progress(share):
        raise LookupError(share)

    result = await enlarged(upscaler, photograph(8, 8), fast, on_progress=on_progress)
    assert result.width == 32
    assert [type(error) for error in raised] == [LookupError]


@pytest.mark.parametrize("gated", [4], indirect=True)
async def test_pictures_that_share_a_batch_come_out_as_if_they_were_alone(gated, fast, monkeypatch):
    pictures = [Picture(pixels=photograph(48, 40).pixels ^ np.uint8(noise)) for noise in range(5)]
    submitted, submit = asyncio.Semaphore(0), gated._executor.submit

    def counted(*arguments):
        submit(*arguments)
        submitted.release()

    monkeypatch.setattr(gated._executor, "submit", counted)
    first = asyncio.create_task(enlarged(gated, pictures[0], fast))
    assert await asyncio.to_thread(gated.devices[0].began.wait, WAIT)
    others = [asyncio.create_task(enlarged(gated, picture, fast)) for picture in pictures[1:]]
    for _ in pictures:
        await submitted.acquire()
    gated.devices[0].gate.set()
    together = await asyncio.gather(first, *others)
    assert gated.devices[0].batches == [1, 4]
    alone = [await enlarged(gated, picture, fast) for picture in pictures]
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.pixels, other.pixels)


async def test_two_tasks_at_once_get_their_own_results(upscaler, fast):
    pictures = [photograph(60, 90), Picture(pixels=photograph(60, 90).pixels[::-1].copy())]
    model = with_tile(fast, 64)
    alone = [await enlarged(upscaler, picture, model, 2) for picture in pictures]
    together = await asyncio.gather(*(enlarged(upscaler, picture, model, 2) for picture in pictures))
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.pixels, other.pixels)


async def test_cancelling_frees_the_tiles_that_have_not_run(gated, fast):
    shares = []
    long = asyncio.create_task(
        enlarged(gated, photograph(60, 200), with_tile(fast, 60), on_progress=shares.append)
    )
    assert await asyncio.to_thread(gated.devices[0].began.wait, WAIT)
    long.cancel()
    with pytest.raises(asyncio.CancelledError):
        await long
    gated.devices[0].gate.set()
    result = await enlarged(gated, photograph(8, 8), fast)
    assert result.width == 32
    assert len(gated.devices[0].batches) == 2
    assert shares == []


async def test_closing_ends_every_upscale_under_way_in_an_error(gated, fast):
    upscales = [
        asyncio.create_task(enlarged(gated, photograph(60, 100), with_tile(fast, 60), factor))
        for factor in (2, 3, 4)
    ]
    assert await asyncio.to_thread(gated.devices[0].began.wait, WAIT)
    closer = threading.Thread(target=gated.close)
    closer.start()
    while not gated._executor._dispatcher.closing:
        closer.join(0.001)
    gated.devices[0].gate.set()
    ended = await asyncio.wait_for(asyncio.gather(*upscales, return_exceptions=True), WAIT)
    closer.join(WAIT)
    assert [str(error) for error in ended] == ["the engine is shutting down"] * 3
    with pytest.raises(ModelError, match="shutting down"):
        await enlarged(gated, photograph(8, 8), fast)


def test_tiles_that_end_after_their_event_loop_harm_nobody(gated, fast):
    async def abandon():
        upscale = asyncio.create_task(enlarged(gated, photograph(8, 8), fast, on_progress=print))
        assert await asyncio.to_thread(gated.devices[0].began.wait, WAIT)
        upscale.cancel()
        with suppress(asyncio.CancelledError):
            await upscale

    asyncio.run(abandon())
    gated.devices[0].gate.set()
    assert asyncio.run(enlarged(gated, photograph(8, 8), fast)).width == 32


@pytest.mark.parametrize("factor", [1, 5, 16])
async def test_a_factor_beyond_the_models_scale_takes_several_passes(upscaler, fast, factor):
    shares, areas = [], 0

    def count(region):
        nonlocal areas
        areas += region.colours.shape[0] * region.colours.shape[1]

    picture = photograph(12, 8)
    result = await upscaler.upscale(
        picture, fast, width=8 * factor, height=12 * factor, on_progress=shares.append, on_region=count
    )
    assert (result.width, result.height) == (8 * factor, 12 * factor)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert areas == result.width * result.height
    small = resize(result.pixels, 8, 12).astype(int)
    assert np.abs(small - picture.pixels).mean() < 16


async def test_a_model_that_cannot_be_built_is_a_model_error(fast, tmp_path):
    (tmp_path / "file").touch()
    upscaler = Upscaler(CPU, tmp_path / "file" / "models")
    with pytest.raises(ModelError, match="realesr-animevideov3 cannot be built"):
        await enlarged(upscaler, photograph(8, 8), fast)
    upscaler.close()


def test_a_model_is_built_and_loaded_once_however_many_want_it_first(fast, tmp_path, monkeypatch):
    builds = []

    def counted(*arguments):
        builds.append(arguments[1].scale)
        return build(*arguments)

    build = Network.build
    monkeypatch.setattr(Network, "build", counted)
    upscaler = Upscaler(CPU, tmp_path)
    shares = []
    with ThreadPoolExecutor() as pool:
        for _ in range(3):
            pool.submit(upscaler.load, fast)
        upscaler.load(fast, shares.append)
    asyncio.run(enlarged(upscaler, photograph(8, 8), fast))
    upscaler.close()
    assert builds == [2, 3, 4]
    assert shares == [1 / 3, 2 / 3, 1]


@pytest.fixture
def upscaler_on(model_directory):
    """Makes upscalers on fake devices that enlarge four times, and closes them at the end."""
    made = []

    def make(*devices):
        made.append(Upscaler(devices, model_directory))
        return made[-1]

    yield make
    for upscaler in made:
        upscaler.close()


def repeated(picture):
    return picture.pixels.repeat(4, 0).repeat(4, 1)


async def test_a_picture_whose_tiles_do_not_fit_is_cut_into_smaller_ones_and_finishes(
    upscaler_on, fast, caplog
):
    device = FakeDevice(scale=4, memory=100 * 100)
    picture, shares = photograph(150, 300), []
    result = await enlarged(upscaler_on(device), picture, fast, on_progress=shares.append)
    assert np.array_equal(result.pixels, repeated(picture))
    assert shares == sorted(set(shares))
    assert shares[-1] == 1


async def test_later_pictures_begin_with_tiles_that_fit(upscaler_on, fast, caplog):
    device = FakeDevice(scale=4, largest_batch=1, memory=100 * 100)
    upscaler, picture = upscaler_on(device), photograph(150, 300)
    await enlarged(upscaler, picture, fast)
    device.sizes.clear()
    result = await enlarged(upscaler, picture, fast)
    assert np.array_equal(result.pixels, repeated(picture))
    assert max(count * height * width for count, height, width in device.sizes) <= device.memory


@pytest.mark.parametrize(
    ("width", "tile", "expected"),
    [(150, 542, 158), (300, 542, 320), (549, 282, 224)],
)
async def test_tiles_on_a_cpu_have_widths_that_it_computes_fast(upscaler_on, fast, width, tile, expected):
    device = FakeDevice(scale=4, largest_batch=1)
    picture = Picture(pixels=np.random.default_rng(0).integers(0, 256, (150, width, 3), np.uint8))
    model = with_tile(fast, tile)
    result = await enlarged(upscaler_on(device), picture, model)
    assert np.array_equal(result.pixels, repeated(picture))
    assert {size[2] for size in device.sizes} == {expected}


async def test_a_model_may_have_tiles_that_are_hardly_larger_than_their_overlaps(upscaler_on, fast):
    device, picture = FakeDevice(scale=4, largest_batch=1), photograph(5, 205)
    result = await enlarged(upscaler_on(device), picture, with_tile(fast, 45), seamless="x")
    assert np.array_equal(result.pixels, repeated(picture))


@pytest.mark.parametrize(("largest_batch", "largest"), [(1, 416), (2, 542)])
async def test_tiles_on_a_cpu_are_small_enough_for_its_caches(upscaler_on, fast, largest_batch, largest):
    device = FakeDevice(scale=4, largest_batch=largest_batch)
    pixels = np.random.default_rng(0).integers(0, 256, (600, 500, 3), np.uint8)
    result = await enlarged(upscaler_on(device), Picture(pixels=pixels), fast)
    assert np.array_equal(result.pixels, repeated(Picture(pixels=pixels)))
    assert 0.7 * largest < max(max(height, width) for _, height, width in device.sizes) <= largest


async def test_with_several_devices_tiles_are_cut_for_the_one_with_the_least_memory(
    upscaler_on, fast, caplog
):
    devices = FakeDevice("small", scale=4, memory=90 * 90), FakeDevice("large", scale=4)
    upscaler, picture = upscaler_on(*devices), photograph(250, 300)
    for _ in range(2):
        result = await enlarged(upscaler, picture, with_tile(fast, 160))
        assert np.array_equal(result.pixels, repeated(picture))


async def test_a_device_without_memory_for_the_smallest_tile_ends_in_an_error(upscaler_on, fast, caplog):
    device = FakeDevice(scale=4, memory=100)
    with pytest.raises(DeviceOutOfMemoryError):
        await enlarged(upscaler_on(device), photograph(150, 300), fast)
    smallest = min(height for _, height, _ in device.sizes)
    assert smallest >= 2 * fast.overlap


async def test_a_low_picture_without_memory_for_all_of_its_width_ends_in_an_error(upscaler_on, fast, caplog):
    device = FakeDevice(scale=4, largest_batch=1, memory=100)
    with pytest.raises(DeviceOutOfMemoryError):
        await enlarged(upscaler_on(device), photograph(7, 201), fast)


async def test_a_picture_finishes_on_the_device_that_is_left(upscaler_on, fast, caplog):
    bad, good = FakeDevice("bad", scale=4, held=True), FakeDevice("good", scale=4, held=True)
    upscaler, picture = upscaler_on(bad, good), photograph(150, 300)
    upscale = asyncio.create_task(enlarged(upscaler, picture, with_tile(fast, 64)))
    assert await asyncio.to_thread(bad.began.acquire, timeout=WAIT)
    bad.error = lost("bad")
    bad.go.set()
    good.go.set()
    assert np.array_equal((await upscale).pixels, repeated(picture))
    assert upscaler.usable


async def test_without_a_device_left_every_upscale_ends_in_an_error(upscaler_on, fast, caplog):
    device = FakeDevice(scale=4)
    device.error = lost()
    upscaler = upscaler_on(device)
    for _ in range(2):
        with pytest.raises(ModelError, match="no device is left to run on"):
            await enlarged(upscaler, photograph(20, 20), fast)
    assert not upscaler.usable


async def test_a_model_that_is_refused_does_not_stop_the_others(upscaler_on, catalogue, fast):
    class Picky(FakeDevice):
        def open(self, network):
            session = super().open(network)
            session.probed = "anime-" not in network.path.name  # what was probed already gives a picture
            return session

    anime = catalogue.get("realesrgan-x4plus-anime")
    upscaler = upscaler_on(Picky(scale=3))
    for _ in range(2):
        with pytest.raises(ModelError, match=r"anime-4x\.onnx is not an upscaler of scale 4"):
            await enlarged(upscaler, photograph(20, 20), anime)
    assert (await enlarged(upscaler, photograph(20, 20), fast, 3)).width == 60


async def test_the_start_is_told_when_a_device_takes_the_first_tile(gated, fast):
    (device,), started = gated.devices, asyncio.Event()
    upscale = asyncio.create_task(enlarged(gated, photograph(60, 130), fast, on_start=started.set))
    await asyncio.to_thread(device.began.wait, WAIT)
    await asyncio.wait_for(started.wait(), WAIT)
    device.gate.set()
    await upscale
    (told,) = gated.activity().devices
    assert sum(told.runs.values()) == len(device.batches)
    assert {kind.model for kind in told.runs} == {fast.name}
