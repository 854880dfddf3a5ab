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
        self._unanswered: deque[tuple[bytes, asyncio.Future[bool]]] = deque()

    def send(self) -> asyncio.Future[bool]:
        """Send a ping; True when it is answered, False if the connection ends first."""
        self._count += 1
        payload, answer = self._count.to_bytes(8), asyncio.get_running_loop().create_future()
        self._unanswered.append((payload, answer))
        self._send(payload)
        return answer

    def note_pong(self, payload: bytes) -> bool:
        """Whether it answers a ping; it answers all before that too (RFC 6455 section 5.5.3)."""
        if all(payload != sent for sent, _ in self._unanswered):
            return False
        while True:
            sent, answer = self._unanswered.popleft()
            if not answer.done():
                answer.set_result(True)
            if sent == payload:
                return True

    def end(self) -> None:
        """No more answers will come."""
        for _, answer in self._unanswered:
            if not answer.done():
                answer.set_result(False)
        self._unanswered.clear()
