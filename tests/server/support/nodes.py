"""Servers that run tasks step by step, as a test says, on a database whose answers it can lose.

All of a server that decides what is run and charged is real: runner, sessions, outbox, ledger, locks. Pixels
are not needed for that; the pipeline reserves a price and waits in between.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Final

import msgspec
import numpy as np
from sqlalchemy import Connection, select

from engines import Picture
from engines.tiling.regions import Region
from engines.tiling.tiles import Area
from server.delivery.previews import TileStreams
from server.delivery.results import Results
from server.delivery.sessions import Disconnected, Session, Sessions
from server.protocol.codec import JSON
from server.protocol.errors import DatabaseUnavailableError, InsufficientCreditsError, TransferError
from server.protocol.requests import OutputType
from server.protocol.sources import RemoteImage
from server.settings import Settings
from server.state import tasks
from server.state.accounts import AccountId
from server.state.database import Database
from server.state.images import ImageRecord
from server.state.logins import Login
from server.state.loose_files import note_loose
from server.state.records import Attempt, StoredResult
from server.state.requests import UpscaleRequest
from server.state.tables import ledger
from server.upscale.runner import Runner
from server.upscale.work import Work
from tests.server.support.harness import new_uuid

__all__ = ["PARTS", "PRICES", "Client", "Node", "World", "charges_of", "request_for"]

PRICES: Final = {
    "cheap": 1_000,
    "dear": 7_000,
    "failing": 2_000,
    "tiles": 9_000,
    "failing tiles": 6_000,
    "upload": 3_000,
    "failing upload": 4_000,
}
"""What the models cost, in nanodollars. Some fail once that is reserved: at their end, or as they upload."""

PARTS: Final = 4
"""Of a result that is sent in tiles."""

RESULT: Final = StoredResult(image_uuid="i", image_name="i.png", input_image_uuid="j")


def request_for(task: str, model: str) -> UpscaleRequest:
    """A request of which nothing but the price matters."""
    return UpscaleRequest(
        task_type="upscale",
        task_uuid=task,
        model=model,
        source=RemoteImage("http://example.com/"),
        parameter="inputImage",
        output_types=(OutputType.URL,),
        output_format="PNG",
        output_quality=95,
        include_cost=True,
        include_tiles="tiles" in model,
        upload_endpoint="http://example.com/" if "upload" in model else None,
    )


class LossyDatabase(Database):
    """A database whose next transactions can be cut off: before they begin, or after they are committed."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.cuts: list[str] = []
        self.under_way = 0

    async def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        cut = self.cuts.pop(0) if self.cuts else None
        if cut == "before":
            raise DatabaseUnavailableError
        self.under_way += 1
        try:
            answer = await super().run(function, *args, **kwargs)
        finally:
            self.under_way -= 1
        if cut == "after":
            raise DatabaseUnavailableError
        return answer


class World:
    """What the servers have let out, beside the outcomes.

    Attributes:
        uploaded: the tasks whose result has left.
        tiles: how many tiles each attempt had to send.
    """

    def __init__(self) -> None:
        self.uploaded: set[str] = set()
        self.tiles: Counter[Attempt] = Counter()


class SteppedPipeline:
    """Reserves a price, gives tiles and a result, and uploads it, each when it is let."""

    def __init__(self, database: LossyDatabase, world: World) -> None:
        self._database = database
        self._world = world
        self.waiting: list[tuple[Attempt, asyncio.Event]] = []

    async def run(self, work: Work) -> tuple[StoredResult, None]:
        attempt, request = work.attempt, work.request
        await self._wait(attempt)
        record = await self._database.run(tasks.find, attempt.account, attempt.task_uuid)
        if record is not None and record.result is not None:
            await self._upload(attempt, request)
            return record.result, None
        image = ImageRecord(new_uuid(), attempt.account, f"{new_uuid()}.png", 1, 1, 1, time.time() + 1e6)
        price = PRICES[request.model]
        if not await self._database.run(tasks.reserve, attempt, price, time.time()):
            raise InsufficientCreditsError("insufficientCredits", "too dear")
        await self._database.run(note_loose, image.name, time.time())
        async with work.regions as on_region:
            for number in range(PARTS if on_region else 0):
                await self._wait(attempt)
                self._world.tiles[attempt] += 1
                assert on_region is not None
                on_region(_part(number))
            await self._wait(attempt)
        if request.upload_endpoint is not None:
            await self._database.insist(tasks.keep, attempt, RESULT, image)
            await self._upload(attempt, request)
        elif "failing" in request.model:
            raise TransferError("uploadFailed", "no")
        return RESULT, None

    async def _upload(self, attempt: Attempt, request: UpscaleRequest) -> None:
        self._world.uploaded.add(attempt.task_uuid)
        await self._wait(attempt)
        if "failing" in request.model:
            raise TransferError("uploadFailed", "no")

    async def _wait(self, attempt: Attempt) -> None:
        place = attempt, asyncio.Event()
        self.waiting.append(place)
        try:
            await place[1].wait()
        finally:
            self.waiting.remove(place)


def _part(number: int) -> Region:
    return Region(
        area=Area(0, number, 1, number + 1),
        width=1,
        height=PARTS,
        source=Picture(np.zeros((PARTS, 1, 3), np.uint8)),
        colours=np.zeros((1, 1, 3), np.uint8),
        alpha=None,
    )


class _AtOnce(Executor):
    """Does everything as it is asked for, so that it takes no time of its own."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(function(*args, **kwargs))
        return done


class Client:
    """The connection of a session: what it gets, and whether it is cut."""

    def __init__(self) -> None:
        self.codec = JSON
        self.base_url = "http://us"
        self.unsent = 0
        self.is_cut = False
        self.results: list[tuple[str, int]] = []
        self.errors: list[tuple[str, str]] = []
        self.tiles: Counter[str] = Counter()

    async def send(self, frame: bytes) -> None:
        if self.is_cut:
            raise Disconnected
        message = msgspec.json.decode(frame)
        for item in message.get("data", []):
            self.tiles[item.get("taskUUID", "")] += "tile" in item
            if "imageURL" in item:
                self.results.append((item["taskUUID"], round(item["cost"] * 1e9)))
        self.errors += [(item["taskUUID"], item["code"]) for item in message.get("errors", [])]

    def room(self, _size: int) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    def confirm(self, _kept: int = 0) -> asyncio.Future[bool]:
        arrived = asyncio.get_running_loop().create_future()
        arrived.set_result(not self.is_cut)
        return arrived

    async def close(self, _code: int, _reason: str) -> None:
        self.is_cut = True


class _Deaf:
    """Stands for what only listens: telemetry, the webhook sender, the image store."""

    def wake(self) -> None: ...
    def stage_ended(self, *_: object) -> None: ...
    def task_ended(self, *_: object) -> None: ...
    def story_ended(self, *_: object) -> None: ...

    async def url(self, name: str, base_url: str) -> str:
        return f"{base_url}/images/{name}"


class Node:
    """One server."""

    def __init__(self, url: str, account: AccountId, world: World) -> None:
        deaf: Any = _Deaf()
        self.tiles = TileStreams()
        self.tiles._encoder.shutdown()
        self.tiles._encoder = _AtOnce()  # type: ignore[assignment]
        self.account = account
        self.database = LossyDatabase(url)
        self.lock = self.database.server_lock()
        assert self.lock.hold()
        self.pipeline: Any = SteppedPipeline(self.database, world)
        self.sessions = Sessions(self.database, Results(deaf, deaf))
        self.runner = Runner(
            settings=Settings(max_tasks_in_flight=6),
            database=self.database,
            pipeline=self.pipeline,
            sessions=self.sessions,
            tiles=self.tiles,
            webhooks=deaf,
            images=deaf,
            lock=self.lock,
            telemetry=deaf,
        )

    async def connect(self, session: str, client: Client) -> Session:
        """Have a client resume a session here, and get what waits for it."""
        attached = await self.sessions.attach(Login(self.account, None), session, client)
        await self.sessions.deliver(self.account, session)
        return attached

    def has(self, client: Client) -> bool:
        """Whether a client is connected here."""
        return any(session.link is client for session in self.sessions._connected.values())

    async def look(self) -> None:
        """What a server does once a second."""
        await self.runner.reconcile("http://us")
        await self.sessions.look()

    async def settle(self) -> None:
        """Return when nothing goes on any more until somebody does something."""
        quiet = 0
        while quiet < 5:
            await asyncio.sleep(0 if self.database.under_way == 0 else 0.0005)
            quiet = 0 if self.database.under_way else quiet + 1

    async def crash(self) -> None:
        """End at once, as when it is killed: what the database was told stays."""
        self.database.cuts = []
        execution = self.runner._execution
        execution.is_stopping = True
        works = execution._work()
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)
        await self.sessions.close()
        self.close()

    def close(self) -> None:
        """Give up the lock, and the connections."""
        self.lock.close()
        self.database.close()


def charges_of(connection: Connection, account: AccountId) -> dict[str, list[int]]:
    """The charges of each task."""
    query = select(ledger.c.task_uuid, ledger.c.amount).where(
        ledger.c.account_id == account, ledger.c.destination == "revenue"
    )
    found: dict[str, list[int]] = {}
    for task, amount in connection.execute(query):
        found.setdefault(task, []).append(amount)
    return found
