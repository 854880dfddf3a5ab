"""Sends outcomes to the URLs that tasks named, as Standard Webhooks has it (standardwebhooks.com).

A webhook is in the database from the moment its task has an outcome. It is tried until the receiver takes it,
over days and restarts, at least once, always under the same `webhook-id`, and signed anew each time.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from standardwebhooks import Webhook

from server.delivery.results import Results
from server.outbound.fetch import FetchError, ForbiddenAddressError, StatusError, WebClient
from server.protocol.codec import JSON, encode_reply
from server.protocol.errors import ErrorItem, UnavailableError
from server.protocol.replies import Progress, UpscaleResult
from server.protocol.trace import outgoing_headers
from server.state import tasks
from server.state.accounts import AccountId
from server.state.database import Database
from server.state.records import Status, TaskRecord
from server.state.requests import Service
from server.state.webhooks import (
    ClaimedWebhook,
    WebhookStatus,
    claim_due,
    finish,
    next_due,
    postpone,
    signing_secrets,
    unclaim,
)

__all__ = ["DELAYS", "WebhookBody", "WebhookSender", "asked_delay", "next_delay", "signed_headers"]

log = logging.getLogger(__name__)

DELAYS: Final = (0.0, 5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)
"""Seconds before each attempt: the schedule that Standard Webhooks gives, ten attempts in three days."""

_JITTER: Final = 0.2
_AT_ONCE: Final = 32
_AT_ONCE_PER_HOST: Final = 2
_AT_ONCE_PER_ACCOUNT: Final = 8
_LOOK_AT_OTHERS_EVERY: Final = 1.0
"""Seconds between two looks for webhooks of others while an account has its share."""
_LOOK_EVERY: Final = 30.0  # for webhooks that another server left behind
_SHORTEST_WAIT: Final = 0.1  # when what is due is just being claimed by another server
_PREPARATION: Final = 60.0
_LAST_NOTES: Final = 1.5  # seconds, when the server stops and the database is away


def next_delay(attempts: int, chance: float, retry_after: float = 0) -> float | None:
    """Seconds until the next attempt after so many failed ones; None if there is to be none.

    Args:
        attempts: how many have failed.
        chance: from 0 to 1; makes the delay up to a fifth longer, so that not all come back at once.
        retry_after: what the receiver asked for; heeded up to the longest delay.
    """
    if attempts >= len(DELAYS):
        return None
    return max(DELAYS[attempts] * (1 + _JITTER * chance), min(retry_after, DELAYS[-1]))


def signed_headers(webhook_id: str, body: bytes, secrets: Iterable[str], now: float) -> dict[str, str]:
    """The headers that let a receiver verify a body, with a signature for each secret."""
    sent = datetime.fromtimestamp(int(now), UTC)
    text = body.decode()
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(now)),
        "webhook-signature": " ".join(Webhook(secret).sign(webhook_id, sent, text) for secret in secrets),
    }


WebhookBody = Callable[[TaskRecord, UpscaleResult | ErrorItem | Progress], bytes]
"""A webhook's body that tells of a task's outcome."""


class _Superseded(Exception):  # noqa: N818 - an event, not a mistake
    """The webhook is of an outcome that does not count any more."""


class WebhookSender:
    """Delivers webhooks as they fall due: several at once, few of them to one host, which may be slow."""

    def __init__(
        self,
        *,
        database: Database,
        results: Results,
        web: WebClient,
        timeout: float,
        bodies: Mapping[Service, WebhookBody] | None = None,
        traced: bool = False,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Deliver what `database` holds.

        Args:
            database: where webhooks wait.
            results: builds their bodies.
            web: sends them.
            timeout: seconds that `web` gives one request.
            bodies: what other services' receivers get in place of Runware's frame.
            traced: whether spans of tasks are recorded.
            clock: the time in seconds since the epoch.
            chance: from 0 to 1, for the jitter.
        """
        self._database = database
        self._results = results
        self._web = web
        self._lease = timeout + _PREPARATION
        self._bodies = bodies or {}
        self._traced = traced
        self._clock = clock
        self._chance = chance
        self._active: Counter[str] = Counter()
        self._of_accounts: Counter[AccountId] = Counter()
        self._attempts: set[asyncio.Task[None]] = set()
        self._notes: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._look: asyncio.Task[float] | None = None

    def wake(self) -> None:
        """Look now whether a webhook is due."""
        self._woken.set()

    async def run(self) -> None:
        """Begin attempts as they fall due, until cancelled; what has begun goes on until `stop`."""
        while True:
            self._woken.clear()
            self._look = asyncio.create_task(self._begin_due())
            try:
                wait = await asyncio.shield(self._look)  # what it claims must not be left claimed
            except Exception:
                log.exception("webhooks cannot be read")
                wait = _LOOK_EVERY
            try:
                async with asyncio.timeout(wait):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def drain(self, patience: float) -> None:
        """Let attempts that are under way end for a while."""
        if self._attempts:
            await asyncio.wait(self._attempts, timeout=patience)

    async def stop(self) -> None:
        """After `run` has ended, break off what it began; that is begun again after the next start."""
        if self._look is not None:
            await asyncio.gather(self._look, return_exceptions=True)
        await asyncio.sleep(0)  # an attempt that was never begun could not give its claim back
        for attempt in (left := list(self._attempts)):
            attempt.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        if self._notes:
            await asyncio.wait(self._notes, timeout=_LAST_NOTES)
        for note in (late := list(self._notes)):
            note.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _begin_due(self) -> float:
        """Begin what is due, as far as there is room; returns the seconds until another look is worth it."""
        while len(self._attempts) < _AT_ONCE:
            busy = [host for host, count in self._active.items() if count >= _AT_ONCE_PER_HOST]
            with_share = [
                account for account, count in self._of_accounts.items() if count >= _AT_ONCE_PER_ACCOUNT
            ]
            webhook = await self._database.run(claim_due, busy, with_share, self._clock(), self._lease)
            if webhook is None:
                due = await self._database.run(next_due, busy)
                until_due = _LOOK_EVERY if due is None else due - self._clock()
                shortest = _LOOK_AT_OTHERS_EVERY if with_share else _SHORTEST_WAIT
                return min(_LOOK_EVERY, max(shortest, until_due))
            self._begin(webhook)
        return _LOOK_EVERY

    def _begin(self, webhook: ClaimedWebhook) -> None:
        self._active[webhook.host] += 1
        self._of_accounts[webhook.account] += 1
        attempt = asyncio.create_task(self._attempt(webhook), name=f"webhook {webhook.id}")
        self._attempts.add(attempt)

        def end(_: asyncio.Task[None]) -> None:
            self._attempts.discard(attempt)
            self._active[webhook.host] -= 1
            if not self._active[webhook.host]:
                del self._active[webhook.host]
            self._of_accounts[webhook.account] -= 1
            if not self._of_accounts[webhook.account]:
                del self._of_accounts[webhook.account]
            self.wake()

        attempt.add_done_callback(end)

    async def _attempt(self, webhook: ClaimedWebhook) -> None:
        """Send a webhook once, and record how that went. It is the sending that can be broken off."""
        try:
            failure = await self._send(webhook)
        except _Superseded:
            return
        except asyncio.CancelledError:
            await self._database.run(unclaim, webhook, self._clock())
            raise
        except Exception:  # the claim ends by itself, and then it is tried again
            log.exception("webhook of task %s", webhook.task_uuid)
            return
        note = asyncio.create_task(self._note(webhook, failure))
        self._notes.add(note)
        note.add_done_callback(self._notes.discard)
        await asyncio.shield(note)

    async def _send(self, webhook: ClaimedWebhook) -> FetchError | UnavailableError | None:
        """POST a webhook; returns why it did not arrive, if it did not.

        Raises:
            _Superseded: if its task has been sent again meanwhile.
        """
        try:
            record = await self._record(webhook)
            body = await self._body(webhook, record)
            now = self._clock()
            secrets = await self._database.run(signing_secrets, webhook.account, now)
            headers = await asyncio.to_thread(signed_headers, webhook.id, body, secrets, now)  # may be large
            headers |= outgoing_headers(record.traceparent, record.attempt.id, recorded=self._traced)
            await self._web.send("POST", webhook.url, body, JSON.media_type, headers, account=webhook.account)
        except (FetchError, UnavailableError) as error:
            return error
        return None

    async def _record(self, webhook: ClaimedWebhook) -> TaskRecord:
        record = await self._database.run(tasks.find, webhook.account, webhook.task_uuid)
        if record is None or record.status is Status.ACCEPTED:
            raise _Superseded
        return record

    async def _body(self, webhook: ClaimedWebhook, record: TaskRecord) -> bytes:
        """The JSON frame that a socket would get, or what the service has in whose shape the task came."""
        item = await self._results.item(record, webhook.base_url)
        body = self._bodies.get(record.service)
        return encode_reply(JSON, item) if body is None else body(record, item)

    async def _note(self, webhook: ClaimedWebhook, failure: Exception | None) -> None:
        """Record how an attempt ended, as soon as the database can be used."""
        delay, now = None, self._clock()
        if failure is None:
            await self._database.insist(finish, webhook, WebhookStatus.DELIVERED, now)
            return
        if not _is_final(failure):
            asked = asked_delay(failure.retry_after, now) if isinstance(failure, StatusError) else 0
            delay = next_delay(webhook.attempts, self._chance(), asked)
        if delay is None:
            log.warning(
                "webhook of task %s given up after attempt %d: %s",
                webhook.task_uuid,
                webhook.attempts,
                failure,
            )
            await self._database.insist(finish, webhook, WebhookStatus.FAILED, now, str(failure))
        else:
            await self._database.insist(postpone, webhook, now + delay, str(failure))


def _is_final(error: Exception) -> bool:
    """Whether trying again is pointless: the address is forbidden, or the receiver wants no more (410)."""
    return isinstance(error, ForbiddenAddressError) or (
        isinstance(error, StatusError) and error.status == 410
    )


def asked_delay(retry_after: str | None, now: float) -> float:
    """What the header `Retry-After` asks for: seconds, or a date (RFC 9110 section 10.2.3); 0 if neither."""
    if retry_after is None:
        return 0
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        return parsedate_to_datetime(retry_after).timestamp() - now
    except (ValueError, OverflowError):
        return 0
