"""A client for Tilewire's socket, on `websockets` and MessagePack: image bytes in, image bytes out.

async with Client("ws://127.0.0.1:8080/v1", key) as client:
    image = await client.upscale(Path("photo.jpg").read_bytes(), upscaleFactor=4)
"""

import asyncio
import os
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI
from websockets.typing import Subprotocol

from server.connection import SUBPROTOCOL

__all__ = ["Client", "RefusedError", "UnreachableError"]

Item = dict[str, Any]


class RefusedError(Exception):
    """The server answered a task with an error; `item` is that error as it came."""

    def __init__(self, item: Item) -> None:
        super().__init__(item["message"])
        self.item = item


class UnreachableError(Exception):
    """The connection could not be made, or was lost."""


class Client:
    """One connection; tasks may run concurrently on it."""

    def __init__(self, url: str, key: str) -> None:
        """
        Args:
            url: the server's socket, `ws://host:port/v1`.
            key: an API key.
        """
        self._url = url
        self._key = key
        self._waiting: dict[str, asyncio.Queue[Item | RefusedError | UnreachableError]] = {}
        self._socket: ClientConnection
        self._reader: asyncio.Task[None]

    async def __aenter__(self) -> "Client":
        """Connect and authenticate.

        Raises:
            UnreachableError: if there is no server.
            RefusedError: if the key is not valid.
        """
        try:
            self._socket = await connect(
                self._url,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                compression=None,
                max_size=None,
            )
        except InvalidURI as error:
            raise UnreachableError(f"{self._url} is not an address of the form ws://host:port/v1") from error
        except (OSError, InvalidHandshake, TimeoutError) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            raise UnreachableError(f"{self._url} cannot be reached: {reason}") from error
        self._reader = asyncio.create_task(self._read())
        try:
            await self._ask("authentication", {"taskType": "authentication", "apiKey": self._key})
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; tasks that wait fail with UnreachableError."""
        await self._socket.close()
        await self._reader

    async def upscale(
        self,
        image: bytes,
        on_progress: Callable[[float], None] | None = None,
        on_tile: Callable[[Item], None] | None = None,
        **parameters: Any,
    ) -> bytes:
        """The upscaled image, encoded.

        Args:
            image: the input, encoded.
            on_progress: called with the finished share, from 0 to 1.
            on_tile: called with each finished part of the result that the server sends before it: `x`, `y`,
                `width`, `height`, `imageWidth`, `imageHeight` in pixels; `image`, encoded; `mediaType`.
            parameters: of the task, by their names on the wire; None means not given.

        Raises:
            RefusedError: if the server answers with an error.
            UnreachableError: if the connection is lost.
        """
        task_uuid = str(uuid.uuid4())
        task: Item = {
            "taskType": "upscale",
            "taskUUID": task_uuid,
            "inputs": {"image": image},
            "outputType": "base64Data",
            "includeProgress": on_progress is not None,
            "includeTiles": on_tile is not None,
            **{name: value for name, value in parameters.items() if value is not None},
        }
        result = await self._ask(task_uuid, task, on_progress, on_tile)
        data: bytes = result["imageBase64Data"]
        return data

    async def _ask(
        self,
        key: str,
        task: Item,
        on_progress: Callable[[float], None] | None = None,
        on_tile: Callable[[Item], None] | None = None,
    ) -> Item:
        queue = self._waiting[key] = asyncio.Queue()
        try:
            await self._socket.send(msgspec.msgpack.encode([task]))
            while True:
                reply = await queue.get()
                if isinstance(reply, Exception):
                    raise reply
                if reply.get("status") != "processing":
                    return reply
                if on_progress is not None:
                    on_progress(reply["progress"])
                if on_tile is not None and "tile" in reply:
                    on_tile(reply["tile"])
        except ConnectionClosed as error:
            raise _lost(error) from error
        finally:
            del self._waiting[key]

    async def _read(self) -> None:
        end = UnreachableError("the connection was closed")
        try:
            async for frame in self._socket:
                message = msgspec.msgpack.decode(frame if isinstance(frame, bytes) else frame.encode())
                for item in message.get("data", []):
                    self._hand_over(item, item)
                for item in message.get("errors", []):
                    self._hand_over(item, RefusedError(item))
        except ConnectionClosed as error:
            end = _lost(error)
        finally:
            for queue in self._waiting.values():
                queue.put_nowait(end)

    def _hand_over(self, item: Item, reply: Item | RefusedError) -> None:
        key = item.get("taskUUID") or item.get("taskType")
        # An error that names no task is about the frame, and may be anyone's.
        for queue in [self._waiting.get(key)] if key else self._waiting.values():
            if queue is not None:
                queue.put_nowait(reply)


def _lost(error: ConnectionClosed) -> UnreachableError:
    reason = f": {error.rcvd.reason}" if error.rcvd is not None and error.rcvd.reason else ""
    return UnreachableError(f"the connection was lost{reason}")
