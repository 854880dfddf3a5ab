"""Pings of the server's, by which it learns what a client has got."""

import asyncio
from collections import deque
from collections.abc import Callable

__all__ = ["Pings"]


class Pings:
    """Those that are not answered yet, oldest first."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        """Send none yet.

        Args:
            send: sends one with a payload.
        """
        self._send = send
        self._count = 0
        self._is_asked = False
        self._next: asyncio.Future[bool] | None = None
        self._unanswered: deque[tuple[bytes, asyncio.Future[bool]]] = deque()

    def send(self) -> asyncio.Future[bool]:
        """Send a ping; True when it is answered, False if the connection ends first."""
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._send_for(answer)
        return answer

    def ask(self) -> asyncio.Future[bool]:
        """As `send`, but one after the other: those who ask while one is unanswered share the next."""
        if not self._is_asked:
            self._is_asked = True
            return self.send()
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        return self._next

    def note_pong(self, payload: bytes) -> bool:
        """Whether it answers a ping; it answers all before that too (RFC 6455 section 5.5.3)."""
        if all(payload != sent for sent, _ in self._unanswered):
            return False
        while True:
            sent, answer = self._unanswered.popleft()
            if not answer.done():
                answer.set_result(True)
            if sent == payload:
                self._ask_next()
                return True

    def end(self) -> None:
        """No more answers will come."""
        if self._next is not None:
            self._unanswered.append((b"", self._next))
            self._next = None
        for _, answer in self._unanswered:
            if not answer.done():
                answer.set_result(False)
        self._unanswered.clear()

    def _ask_next(self) -> None:
        """At once: whatever is sent behind it is not to overtake it."""
        answer, self._next = self._next, None
        self._is_asked = answer is not None
        if answer is not None:
            self._send_for(answer)

    def _send_for(self, answer: asyncio.Future[bool]) -> None:
        self._count += 1
        payload = self._count.to_bytes(8)
        self._unanswered.append((payload, answer))
        self._send(payload)
