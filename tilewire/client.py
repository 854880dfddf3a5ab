"""The client's calls."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, Coroutine, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, TypeVar, Unpack, cast, overload
from uuid import UUID

import msgspec

from tilewire.call import WireTask
from tilewire.events import Event, Finished, Result, Upload, decode_event
from tilewire.frames import Frame, Frames, stream_frames
from tilewire.link import Link
from tilewire.listings import Account, Model, ModelPage
from tilewire.pictures import has_alpha
from tilewire.sources import Source, is_array, wire_image
from tilewire.wire import canonical_uuid, wire_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Blend", "Options", "PixelOptions", "Tilewire"]

_MOST_MODELS: Final = 100  # of one modelSearch
_MOST_IN_FLIGHT: Final = 64

T = TypeVar("T")


class Blend(TypedDict):
    """A second model, and how much of its result is laid over the first one's."""

    model: str
    """Name or AIR id."""
    visibility: float
    """From 0 to 1."""


class PixelOptions(TypedDict, total=False):
    """What an upscale of an array may be told; what is None or left out is the server's default."""

    model: str | None
    """Name or AIR id; default: the server's first."""
    factor: float | None
    """How many times as wide and high; default: the model's largest."""
    target_megapixels: float | None
    """The size of the result, in place of a factor."""
    width: int | None
    """How many pixels wide, in place of a factor; with a height too, what fits within the two."""
    height: int | None
    """How many pixels high, in place of a factor."""
    resize_mode: Literal["fit", "fill", "crop", "stretch"] | None
    """What a width and a height together mean; default: fit."""
    settings: dict[str, Any] | None
    """What only some models take, such as `{"denoise": 1}`: see `Model.parameters`."""
    seamless: Literal["x", "y", "both"] | None
    """Where opposite edges are to meet without a seam, as of textures; see `Model.options`."""
    tta: Literal[1, 8] | None
    """8: the mean over all flips and turns of the picture, for eight times the work and cost."""
    blend: Blend | None
    """A second model, whose result is laid over the first one's."""
    keep_hidden_colors: bool | None
    """Whether to keep the colours of transparent pixels, of a texture; default: no."""
    denoise: float | None
    """How much noise to remove first, 0 to 75: its standard deviation in levels of 255; default: none."""
    restore_faces: bool | str | None
    """Whether to restore faces, or the name of the model that does; default: no."""
    face_visibility: float | None
    """How much of restored faces is to be seen, 0 to 1; default: 1."""
    face_weight: float | None
    """Of CodeFormer: from 0, the finest face, to 1, the one most like what is seen; default: 0.5."""
    nsfw: Literal["flag", "refuse"] | None
    """Look for what is not safe for work: the result then has `nsfw`, or the task fails with
    `nsfwContentDetected`. Default: as the server has it."""
    task_uuid: UUID | str | None
    """An idempotency key: the same task again is neither done nor charged again. Default: a new one."""


class Options(PixelOptions, total=False):
    """What an upscale may be told; what is None or left out is as the server has it by default."""

    output_format: Literal["JPG", "PNG", "WEBP", "RAW"] | None
    """RAW: the pixels alone, of which nothing is stored. Default: of an array RAW; else JPG, or PNG where the
    source is seen to have transparency, which JPG cannot hold."""
    output_quality: int | None
    """20 to 99, of JPG and WEBP; default: 95."""
    keep_metadata: bool | None
    """Whether to keep EXIF, XMP, IPTC, texts and the resolution; default: no."""
    store: bool | None
    """Whether the server keeps raw pixels, of an array and of RAW, as it keeps files; default: no."""
    ttl: int | None
    """Seconds until the server deletes the result."""
    include_image: bool
    """Whether the image itself comes with the result; default: yes. Without it there is the URL."""


class Tilewire:
    """A session with a server, for the time of an `async with` block.

        async with Tilewire("ws://127.0.0.1:8080/v1", key) as tilewire:
            result = await tilewire.upscale("photo.jpg", factor=2, output_format="WEBP")
            result.save("photo-2x.webp")

    A connection that is lost comes back by itself: the session resumes, and tasks without an answer are sent
    again under their `taskUUID`, so that each is done and charged once. A server that asks to come again
    later is asked again. Cancelling a call stops its task on the server.
    """

    def __init__(self, url: str, key: str, *, concurrency: int = 8, patience: float = 300) -> None:
        """Make a client; `async with` connects it.

        Args:
            url: the server's address: ws://host:port/v1, wss://… behind TLS, that of its page, or
                unix:///path on the same machine.
            key: an API key.
            concurrency: how many upscales are on the server at once; further calls wait here.
            patience: seconds to keep trying, each time, while the server is gone or does not take a task.
        """
        if concurrency < 1:
            raise ValueError(f"concurrency must be 1 or more, not {concurrency}")
        self._link = Link(url, key, patience)
        self._concurrency = concurrency
        self._room: asyncio.Semaphore
        self._owned: set[asyncio.Task[Result]] = set()

    async def __aenter__(self) -> Tilewire:
        """Connect.

        Raises:
            UnreachableError: if there is no server.
            AuthenticationFailedError: if the key is not valid.
            RuntimeError: if it is connected already.
        """
        await self._link.__aenter__()
        self._room = asyncio.Semaphore(self._concurrency)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection; calls that still wait fail."""
        await _stop(self._owned)
        await self._link.__aexit__(kind, error, trace)

    @overload
    async def upscale(
        self, source: NDArray[np.uint8], **options: Unpack[PixelOptions]
    ) -> NDArray[np.uint8]: ...

    @overload
    async def upscale(self, source: Source, **options: Unpack[Options]) -> Result: ...

    async def upscale(self, source: Source, **options: Unpack[Options]) -> Result | NDArray[np.uint8]:
        """Enlarge an image. An array becomes an array, unless an `output_format` is asked for.

            result = await tilewire.upscale(Path("photo.jpg"), model="realesr-animevideov3", factor=2)
            larger = await tilewire.upscale(np.zeros((32, 32, 3), np.uint8))

        The pixels of arrays are sent and given as they are; the server keeps nothing of them. If it is killed
        meanwhile, the client sends them again.

        Args:
            source: see `Source`; of an array (H, W), (H, W, 3) or (H, W, 4) the result has as many channels.
            options: see `Options`.

        Raises:
            TaskFailedError: if the server answers with an error; its subclasses tell which.
            UnreachableError: if the connection was lost for longer than the client is patient.
            OSError: if the file cannot be read.
            TypeError: if the source is none, or there is no such option.
            ValueError: if a `task_uuid` is no UUID, or is under way already.
            RuntimeError: if the client is used before `async with`, or in another event loop.
        """
        result = await self._result(source, options)
        is_pixels = is_array(source) and not options.get("output_format")
        return result.to_array() if is_pixels else result

    async def events(
        self, source: Source, *, tiles: bool = True, **options: Unpack[Options]
    ) -> AsyncGenerator[Event, None]:
        """Enlarge an image, and give news meanwhile: how far it is, finished parts, and last the result.

            async for event in tilewire.events("photo.jpg"):
                match event:
                    case Progress(share=share):
                        print(f"{share:.0%}")
                    case TileReady():
                        canvas.paste(event.to_pillow(), (event.x, event.y))
                    case Result():
                        event.save("photo-4x.jpg")

        To leave the loop early is to give the task up; `contextlib.aclosing` does that at once. Who reads
        slowly misses some of the progress and of the parts.

        Args:
            source: see `Source`.
            tiles: whether to send finished parts.
            options: see `Options`.

        Raises:
            Exception: as `upscale`.
        """
        wanted = {"includeProgress": True, "includeTiles": tiles}
        async with contextlib.aclosing(self._events(source, options, wanted)) as events:
            async for event in events:
                yield event

    async def stream(
        self, frames: Frames, *, in_flight: int = 2, latest: bool = False, **options: Unpack[PixelOptions]
    ) -> AsyncGenerator[Frame, None]:
        """Enlarge frame after frame, such as video; each is given as soon as it and those before it are done.

            async for frame in tilewire.stream(camera(), latest=True, model="realesr-animevideov3", factor=2):
                show(frame.pixels)

        To leave the loop early is to give up what is under way; `contextlib.aclosing` does that at once.

        Args:
            frames: arrays (H, W), (H, W, 3) or (H, W, 4) uint8, or other sources; what gives them may be
                asynchronous, or block. It is asked for no more than there is room for, but for the latest
                frame: then it is asked as fast as it goes.
            in_flight: how many are worked on at once; more keep the device busy, and make each later.
            latest: whether a frame that waits is dropped when a newer one comes. It is left out, and costs
                nothing.
            options: see `PixelOptions`; for all of them, so without a `task_uuid`.

        Raises:
            ValueError: if there is a `task_uuid`, or `in_flight` is not from 1 to 64.
            Exception: as `upscale`, and what the source raises.
        """
        self._link.check_use()
        if options.get("task_uuid"):
            raise ValueError("each frame needs a taskUUID of its own")
        if not 1 <= in_flight <= _MOST_IN_FLIGHT:
            raise ValueError(f"in_flight must be from 1 to {_MOST_IN_FLIGHT}, not {in_flight}")
        own = cast("Options", {**options, "output_format": "RAW"})

        def begin(source: Source, more: WireTask) -> Coroutine[Any, Any, Result]:
            return self._result(source, own, more)

        streamed = stream_frames(frames, begin, in_flight, latest=latest)
        async with contextlib.aclosing(streamed):
            async for frame in streamed:
                yield frame

    async def upscale_many(
        self, sources: Iterable[Source], **options: Unpack[Options]
    ) -> AsyncGenerator[Finished, None]:
        """Enlarge many images, several at once; each is given as soon as it is finished, in any order.

            async for finished in tilewire.upscale_many(Path("photos").glob("*.jpg"), factor=2):
                finished.result().save(f"larger/{finished.source.name}")

        One that fails is given as the others are: `Finished.result` raises. To leave the loop early is to
        give the rest up.

        Args:
            sources: see `Source`; read as there is room, so there may be many.
            options: see `Options`; for all of them, so without a `task_uuid`.

        Raises:
            ValueError: if there is a `task_uuid`.
            RuntimeError: if the client is used before `async with`, or in another event loop.
        """
        self._link.check_use()
        if options.get("task_uuid"):
            raise ValueError("each task needs a taskUUID of its own")
        running: dict[asyncio.Task[Result], Source] = {}
        left = iter(sources)
        try:
            while True:
                while len(running) < self._concurrency and (source := next(left, None)) is not None:
                    task = asyncio.create_task(self._result(source, options))
                    running[task] = source
                    self._owned.add(task)
                    task.add_done_callback(self._owned.discard)
                if not running:
                    return
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield Finished(running.pop(task), _outcome(task))
        finally:
            await _stop(running)

    async def upload(self, source: Source, *, ttl: int | None = None) -> Upload:
        """Have the server keep an image, to be used any number of times; raises as `upscale`.

            upload = await tilewire.upload("photo.jpg")
            twice, thrice = [await tilewire.upscale(upload, factor=factor) for factor in (2, 3)]

        Args:
            source: see `Source`.
            ttl: seconds until the server deletes it.
        """
        self._link.check_use()
        image = await wire_image(source)
        return await self._ask(Upload, "imageUpload", image=image, ttl=ttl)

    async def cancel(self, task_uuid: UUID | str) -> bool:
        """Stop a task, whose own call then raises TaskCancelledError; False if none of it is under way.

        Raises:
            ValueError: if it is no UUID.
        """
        return await self._link.cancel(canonical_uuid(task_uuid))

    async def models(self, category: str | None = None) -> list[Model]:
        """List the models that the server has.

        Args:
            category: `denoiser`, `faceRestorer` or `faceDetector`; default: those that enlarge.
        """
        found: list[Model] = []
        while True:
            page = await self._ask(
                ModelPage, "modelSearch", category=category, limit=_MOST_MODELS, offset=len(found)
            )
            found += page.results
            if not page.results or len(found) >= page.total_results:
                return found

    async def account(self) -> Account:
        """Give the account's balance, keys and usage."""
        return await self._ask(Account, "accountManagement", operation="getDetails")

    async def _ask(self, kind: type[T], task_type: str, **parameters: Any) -> T:
        reply = await self._link.ask(_task(task_type, parameters))
        return msgspec.msgpack.decode(reply, type=kind)

    async def _result(self, source: Source, options: Options, more: WireTask | None = None) -> Result:
        async with contextlib.aclosing(self._events(source, options, more)) as events:
            async for event in events:
                if isinstance(event, Result):
                    return event
        raise AssertionError("a task ends with a result or an error")

    async def _events(
        self, source: Source, options: Options, more: WireTask | None = None
    ) -> AsyncGenerator[Event, None]:
        if unknown := options.keys() - Options.__annotations__:
            raise TypeError(f"there is no option {min(unknown)!r}")
        parameters: dict[str, Any] = {**options}
        if parameters.get("output_format") is None and is_array(source):
            parameters["output_format"] = "RAW"
        with_file = parameters.pop("include_image", True) and parameters.get("output_format") != "RAW"
        parameters["upscale_factor"] = parameters.pop("factor", None)
        if parameters.get("denoise") is not None:
            parameters["denoise"] = {"strength": parameters["denoise"]}
        parameters["face_restoration"] = _faces(
            *(parameters.pop(name, None) for name in ("restore_faces", "face_visibility", "face_weight"))
        )
        if (action := parameters.pop("nsfw", None)) is not None:
            parameters["safety"] = {"action": action}
        if parameters.get("task_uuid") is not None:
            parameters["task_uuid"] = canonical_uuid(parameters["task_uuid"])
        self._link.check_use()
        is_frame = more is not None and "sequence" in more  # its stream says how many there are at once
        async with contextlib.nullcontext() if is_frame else self._room:
            image = await wire_image(source)
            needs_alpha = parameters.get("keep_hidden_colors") or (
                isinstance(image, bytes) and has_alpha(image)
            )
            if parameters.get("output_format") is None and needs_alpha:
                parameters["output_format"] = "PNG"
            task = _task("upscale", parameters) | {
                "inputs": {"image": image},
                "outputType": ["URL", "base64Data"] if with_file else ["URL"],
                "includeCost": True,
                **(more or {}),
            }
            async with contextlib.aclosing(self._link.replies(task, stop=True)) as replies:
                async for reply in replies:
                    yield decode_event(reply)


def _faces(model: bool | str | None, visibility: float | None, weight: float | None) -> dict[str, Any] | None:
    if not model:
        return None
    wanted = {"model": model if isinstance(model, str) else None, "visibility": visibility, "weight": weight}
    return {name: value for name, value in wanted.items() if value is not None}


def _task(task_type: str, parameters: dict[str, Any]) -> WireTask:
    given = {wire_name(name): value for name, value in parameters.items() if value is not None}
    return {"taskUUID": str(uuid.uuid4()), **given, "taskType": task_type}


def _outcome(task: asyncio.Task[Result]) -> Result | Exception:
    error = task.exception()
    if error is None:
        return task.result()
    if isinstance(error, Exception):
        return error
    raise error


async def _stop(tasks: Iterable[asyncio.Task[Result]]) -> None:
    """Cancel, and wait until they have ended."""
    waiting = list(tasks)
    for task in waiting:
        if not task.cancelling():  # a second time would keep it from telling the server
            task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
