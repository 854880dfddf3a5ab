"""Servers that run tasks step by step, as a test says, on a database whose answers it can lose.

All of a server that decides what is run and charged is real: runner, sessions, outbox, ledger, locks. Pixels
are not needed for that; the pipeline reserves a price and waits in between.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, select

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
from server.state.logins import Login
from server.state.records import Attempt, StoredResult
from server.state.requests import UpscaleRequest
from server.state.tables import ledger
from server.upscale.runner import Runner

__all__ = ["PRICES", "Client", "Node", "charges_of", "request_for"]

PRICES: Final = {"cheap": 1_000, "dear": 7_000, "failing": 2_000}
"""What the models cost, in nanodollars; one fails when it has reserved that."""

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


class SteppedPipeline:
    """Reserves a price and gives a result, each when it is let."""

    def __init__(self, database: LossyDatabase) -> None:
        self._database = database
        self.waiting: list[tuple[Attempt, asyncio.Event]] = []

    async def run(
        self, attempt: Attempt, request: UpscaleRequest, *_: object, **__: object
    ) -> tuple[StoredResult, None]:
        await self._wait(attempt)
        if not await self._database.run(tasks.reserve, attempt, PRICES[request.model], time.time()):
            raise InsufficientCreditsError("insufficientCredits", "too dear")
        await self._wait(attempt)
        if request.model == "failing":
            raise TransferError("uploadFailed", "no")
        return RESULT, None

    async def _wait(self, attempt: Attempt) -> None:
        place = attempt, asyncio.Event()
        self.waiting.append(place)
        try:
            await place[1].wait()
        finally:
            self.waiting.remove(place)


class Client:
    """The connection of a session: what it gets, and whether it is cut."""

    def __init__(self) -> None:
        self.codec = JSON
        self.base_url = "http://us"
        self.unsent = 0
        self.is_cut = False
        self.results: list[tuple[str, int]] = []
        self.errors: list[tuple[str, str]] = []

    async def send(self, frame: bytes) -> None:
        if self.is_cut:
            raise Disconnected
        message = msgspec.json.decode(frame)
        for item in message.get("data", []):
            if "imageURL" in item:
                self.results.append((item["taskUUID"], round(item["cost"] * 1e9)))
        self.errors += [(item["taskUUID"], item["code"]) for item in message.get("errors", [])]

    async def room(self) -> None:
        pass

    def confirm(self) -> asyncio.Future[bool]:
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

    def __init__(self, url: str, account: AccountId) -> None:
        deaf: Any = _Deaf()
        self.account = account
        self.database = LossyDatabase(url)
        self.lock = self.database.server_lock()
        assert self.lock.hold()
        self.pipeline: Any = SteppedPipeline(self.database)
        self.sessions = Sessions(self.database, Results(deaf))
        self.runner = Runner(
            settings=Settings(max_tasks_in_flight=6),
            database=self.database,
            pipeline=self.pipeline,
            sessions=self.sessions,
            tiles=deaf,
            webhooks=deaf,
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
