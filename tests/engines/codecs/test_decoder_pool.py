"""Decoders in processes of their own: what happens in one is nothing to the others, nor to this process."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from unittest.mock import Mock

import numpy as np
import pytest
import pytest_asyncio

from engines import (
    BrokenImageError,
    Decoders,
    EngineError,
    ImageError,
    ImageTooLargeError,
    NotAnImageError,
    Picture,
)
from engines import decode as decode_here
from engines import inspect as inspect_here
from tests.engines.codecs.test_image import FORMATS, XMP, exif_with, photograph, saved
from tests.processes import PATIENCE, children, computed, ended, status, wait_for

LIMIT = 1_000_000
TAKEN_OVER = (sys.executable, "-m", "tests.engines.codecs.hostile_decoder")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def decoders() -> AsyncIterator[Decoders]:
    decoders = Decoders(2)
    yield decoders
    decoders.close()


@pytest.fixture
def taken_over() -> Iterator[Decoders]:
    """One process, whose decoder does what the bytes say, with two seconds for each image."""
    decoders = Decoders(1, seconds=2, command=TAKEN_OVER)
    yield decoders
    decoders.close()


async def said(decoders: Decoders, code: str) -> str:
    """What the text `said` was after some code was run by the decoder."""
    picture = await decoders.decode(f"#!\n{code}".encode(), max_pixels=LIMIT)
    assert picture.metadata.exif is not None
    return picture.metadata.exif.decode()


async def run(decoders: Decoders, code: str) -> None:
    await said(decoders, code)


async def works(decoders: Decoders) -> None:
    """A harmless image is decoded as ever."""
    data = saved(photograph(), "PNG")
    picture = await decoders.decode(data, max_pixels=LIMIT)
    np.testing.assert_array_equal(picture.pixels, decode_here(data, max_pixels=LIMIT).pixels)


@pytest.mark.parametrize("name", FORMATS)
async def test_a_picture_is_the_same_as_without_a_process(decoders: Decoders, name: str) -> None:
    image = photograph()
    if name in {"PNG", "WEBP", "TIFF"}:
        image.putalpha(image.convert("L"))
    options = {"exif": exif_with(6), "xmp": XMP} if name in {"JPEG", "WEBP"} else {}
    data = saved(image, name, **options)
    here, there = decode_here(data, max_pixels=LIMIT), await decoders.decode(data, max_pixels=LIMIT)
    np.testing.assert_array_equal(there.pixels, here.pixels)
    assert not there.pixels.flags.writeable
    assert there.pixels.flags.c_contiguous
    if here.alpha is None:
        assert there.alpha is None
    else:
        np.testing.assert_array_equal(there.alpha, here.alpha)
    assert (there.metadata, there.icc_profile) == (here.metadata, here.icc_profile)
    info = inspect_here(data, max_pixels=LIMIT)
    assert await decoders.inspect(data, max_pixels=LIMIT) == info
    both, picture = await decoders.read(data, max_pixels=LIMIT, decoded_up_to=here.width * here.height)
    assert (both, picture and picture.metadata) == (info, here.metadata)
    assert await decoders.read(data, max_pixels=LIMIT, decoded_up_to=100) == (info, None)


async def test_an_image_whose_pixels_are_broken_is_still_inspected(decoders: Decoders) -> None:
    data = saved(photograph(), "PNG")[:-100]
    info = inspect_here(data, max_pixels=LIMIT)
    assert await decoders.read(data, max_pixels=LIMIT, decoded_up_to=LIMIT) == (info, None)
    with pytest.raises(BrokenImageError):
        await decoders.decode(data, max_pixels=LIMIT)


async def read_both(decoders: Decoders, data: bytes, *, max_pixels: int) -> object:
    return await decoders.read(data, max_pixels=max_pixels, decoded_up_to=max_pixels)


@pytest.mark.parametrize("read", [Decoders.decode, Decoders.inspect, read_both])
async def test_errors_are_the_same_as_without_a_process(decoders: Decoders, read: object) -> None:
    data = saved(photograph(), "PNG")
    assert callable(read)
    with pytest.raises(NotAnImageError, match="JPEG, PNG, WEBP"):
        await read(decoders, b"<svg/>", max_pixels=LIMIT)
    with pytest.raises(BrokenImageError, match="truncated or corrupt"):
        await read(decoders, data[:20], max_pixels=LIMIT)
    with pytest.raises(ImageTooLargeError, match="the limit is 100"):
        await read(decoders, data, max_pixels=100)


async def test_many_images_at_once_all_get_their_own_answer(decoders: Decoders) -> None:
    files = [saved(photograph(10 + number, 10), "PNG") for number in range(40)]
    pictures = await asyncio.gather(*(decoders.decode(file, max_pixels=LIMIT) for file in files))
    assert [picture.width for picture in pictures] == [10 + number for number in range(40)]


@pytest.mark.parametrize(
    "code",
    [
        "ctypes.string_at(0)",
        "os.kill(os.getpid(), signal.SIGABRT)",
        "os._exit(0)",
        "raise RuntimeError",
        "size = (10**6, 2)",  # a picture larger than may be
        "os.write(4, b'\\xff' * 1000)",  # an answer that makes no sense
    ],
)
@pytest.mark.parametrize("read", [Decoders.decode, Decoders.inspect, read_both])
async def test_a_crash_costs_one_image(taken_over: Decoders, code: str, read: object) -> None:
    assert callable(read)
    with pytest.raises(BrokenImageError, match="could not be decoded: the decoder crashed"):
        await read(taken_over, f"#!\n{code}".encode(), max_pixels=LIMIT)
    await works(taken_over)


async def test_a_crash_is_nothing_to_the_images_beside_and_behind() -> None:
    decoders = Decoders(2, command=TAKEN_OVER)
    data = saved(photograph(), "PNG")
    try:
        files = [b"#!\nctypes.string_at(0)" if number % 3 == 0 else data for number in range(12)]
        outcomes = await asyncio.gather(
            *(decoders.decode(file, max_pixels=LIMIT) for file in files), return_exceptions=True
        )
    finally:
        decoders.close()
    for number, outcome in enumerate(outcomes):
        assert isinstance(outcome, BrokenImageError if number % 3 == 0 else Picture)


async def test_a_decoder_that_computes_without_end_is_ended(taken_over: Decoders) -> None:
    began = time.monotonic()
    with pytest.raises(BrokenImageError, match="it took more than 2 seconds"):
        await run(taken_over, "while True: pass")
    assert time.monotonic() - began < PATIENCE
    await works(taken_over)


async def test_a_decoder_that_waits_without_end_is_ended() -> None:
    decoders = Decoders(1, seconds=0.5, command=TAKEN_OVER)
    try:
        with pytest.raises(BrokenImageError, match=r"it took more than 0\.5 seconds"):
            await run(decoders, "threading.Event().wait()")
        await works(decoders)
    finally:
        decoders.close()


async def test_memory_is_limited_in_proportion_to_the_pixels(taken_over: Decoders) -> None:
    allocate = "numpy.ones(300 * 2**20, numpy.uint8)"
    with pytest.raises(BrokenImageError, match="could not be decoded"):
        await taken_over.decode(f"#!\n{allocate}".encode(), max_pixels=1_000_000)
    await taken_over.decode(f"#!\n{allocate}".encode(), max_pixels=10_000_000)
    await works(taken_over)


async def test_a_decoder_that_does_not_give_memory_back_is_replaced(taken_over: Decoders) -> None:
    first = await said(taken_over, "leak.append(numpy.ones(150 * 2**20, numpy.uint8)); said = os.getpid()")
    assert await said(taken_over, "said = os.getpid()") == first  # where it is noticed
    assert await said(taken_over, "said = os.getpid()") != first


@pytest.mark.parametrize(
    "attempt",
    [
        "open('/etc/passwd')",
        "open('/tmp/file', 'w')",
        "os.pipe()",
        "socket.socket()",
        "socket.create_connection(('127.0.0.1', 9))",
    ],
)
async def test_a_decoder_can_open_neither_files_nor_connections(taken_over: Decoders, attempt: str) -> None:
    code = f"try:\n {attempt}\n said = 'it worked'\nexcept OSError as error: said = error.strerror"
    assert await said(taken_over, code) == "Too many open files"


async def test_a_decoder_is_not_told_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWIRE_API_KEY", "secret")
    decoders = Decoders(1, command=TAKEN_OVER)
    try:
        assert "secret" not in await said(decoders, "said = dict(os.environ)")
    finally:
        decoders.close()


async def test_a_decoder_gains_no_rights(decoders: Decoders) -> None:
    await works(decoders)
    assert "NoNewPrivs:\t1" in [line for pid in children(os.getpid()) for line in status(pid)]


async def test_what_a_decoder_prints_goes_nowhere(
    taken_over: Decoders, capfd: pytest.CaptureFixture[str]
) -> None:
    await run(taken_over, "os.write(1, b'noise'); os.write(2, b'noise')")
    await works(taken_over)
    assert "noise" not in "".join(capfd.readouterr())


async def test_signals_to_the_whole_group_leave_decoders_to_the_server(taken_over: Decoders) -> None:
    first = await said(taken_over, "said = os.getpid()")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(int(first), number)
    assert await said(taken_over, "said = os.getpid()") == first


async def test_a_decoder_that_was_killed_while_it_waited_is_replaced(taken_over: Decoders) -> None:
    pid = int(await said(taken_over, "said = os.getpid()"))
    os.kill(pid, signal.SIGKILL)
    await asyncio.to_thread(wait_for, lambda: ended(pid))
    await works(taken_over)


async def test_a_decoder_that_is_killed_at_work_costs_one_image() -> None:
    decoders = Decoders(1, command=TAKEN_OVER)
    try:
        pid = int(await said(decoders, "said = os.getpid()"))
        before = computed(pid)
        job = asyncio.create_task(decoders.decode(b"#!\nwhile True: pass", max_pixels=LIMIT))
        await asyncio.to_thread(wait_for, lambda: computed(pid) > before + 10)
        os.kill(pid, signal.SIGSEGV)
        with pytest.raises(BrokenImageError, match="the decoder crashed"):
            await job
        await works(decoders)
    finally:
        decoders.close()


async def test_what_is_cancelled_before_its_turn_is_not_decoded(taken_over: Decoders) -> None:
    first = asyncio.create_task(run(taken_over, "while True: pass"))
    second = asyncio.create_task(run(taken_over, "os._exit(1)"))
    await asyncio.sleep(0)
    second.cancel()
    with suppress(BrokenImageError):
        await first
    with pytest.raises(asyncio.CancelledError):
        await second
    await works(taken_over)


async def test_closing_ends_the_images_under_way_and_those_that_wait() -> None:
    decoders = Decoders(1, command=TAKEN_OVER)
    pid = int(await said(decoders, "said = os.getpid()"))
    before = computed(pid)
    jobs = [asyncio.create_task(run(decoders, "while True: pass")) for _ in range(3)]
    await asyncio.to_thread(wait_for, lambda: computed(pid) > before + 10)
    await asyncio.to_thread(decoders.close)
    for outcome in await asyncio.gather(*jobs, return_exceptions=True):
        assert isinstance(outcome, EngineError)
    assert ended(pid)
    with pytest.raises(EngineError):
        await asyncio.wait_for(works(decoders), PATIENCE)


async def test_decoders_that_do_not_start_are_an_error_and_not_a_wait() -> None:
    decoders = Decoders(1, command=(sys.executable, "-c", "print('hello')"))
    try:
        with pytest.raises(EngineError, match="can be started"):
            await asyncio.wait_for(works(decoders), PATIENCE)
    finally:
        decoders.close()


@pytest.mark.parametrize("missing", ["process", "thread", "memory"])
async def test_a_system_that_has_no_more_costs_the_images_of_that_time(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be started for a while is started when it can be again: nothing hangs, nothing is left."""
    decoders = Decoders(1, command=TAKEN_OVER)
    try:
        if missing != "thread":
            await works(decoders)
        with monkeypatch.context() as full:
            error = {"process": BlockingIOError(11, "no more processes"), "memory": MemoryError()}.get(
                missing
            )
            refuse = Mock(side_effect=error or RuntimeError("can't start new thread"))
            if missing == "thread":
                decoders.close()
                full.setattr(threading.Thread, "start", refuse)
                decoders = Decoders(1, command=TAKEN_OVER)
            else:
                full.setattr(subprocess, "Popen", refuse)
                with pytest.raises(BrokenImageError):
                    await run(decoders, "os._exit(0)")
            for _ in range(3):
                with pytest.raises(EngineError, match=r"no process|no image can be decoded now"):
                    await asyncio.wait_for(works(decoders), PATIENCE)
        await asyncio.wait_for(works(decoders), PATIENCE)
    finally:
        decoders.close()


async def test_a_decoder_that_is_stopped_is_late() -> None:
    decoders = Decoders(1, seconds=0.5, command=TAKEN_OVER)
    try:
        os.kill(int(await said(decoders, "said = os.getpid()")), signal.SIGSTOP)
        with pytest.raises(BrokenImageError, match=r"it took more than 0\.5 seconds"):
            await works(decoders)
        await works(decoders)
    finally:
        decoders.close()


@pytest.mark.parametrize("work", ["while True: pass", "threading.Event().wait()"])
def test_decoders_end_with_the_process_that_was_killed(work: str) -> None:
    program = f"""
import asyncio, sys
from engines import Decoders
from tests.engines.codecs.test_decoder_pool import TAKEN_OVER, run, said
async def main():
    decoders = Decoders(1, command=TAKEN_OVER)
    print(await said(decoders, "said = os.getpid()"), flush=True)
    await run(decoders, {work!r})
asyncio.run(main())
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, encoding="utf-8")
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    wait_for(lambda: ended(pid))


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_images_that_broke_decoders_come_out_as_without_a_process(
    decoders: Decoders, given_images: Iterator[tuple[str, bytes]]
) -> None:
    for name, data in given_images:
        outcomes: list[object] = []
        for decode in (decode_here_in_a_thread, decoders.decode):
            try:
                picture = await decode(data, max_pixels=32_000_000)
                alpha = None if picture.alpha is None else picture.alpha.tobytes()
                outcomes.append(
                    (
                        picture.pixels.tobytes(),
                        alpha,
                        picture.icc_profile,
                        picture.metadata.exif,
                        picture.metadata.xmp,
                    )
                )
            except ImageError as error:
                outcomes.append((type(error), str(error)))
        assert outcomes[0] == outcomes[1], name


async def decode_here_in_a_thread(data: bytes, *, max_pixels: int) -> Picture:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return await asyncio.to_thread(decode_here, data, max_pixels=max_pixels)
