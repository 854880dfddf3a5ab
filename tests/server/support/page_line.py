"""The line between the page and its server, under the control of a test."""

from collections.abc import Callable
from typing import Any

import msgspec

Item = dict[str, Any]


class PageLine:
    """Give its `install` to `open_page` as `before`.

    Attributes:
        sent: the tasks that the page has sent, images and all.
        answer: what to answer a task with in place of the server; None to let it pass.
        lose: whether a reply of the server is lost.
    """

    def __init__(self) -> None:
        self.sent: list[Item] = []
        self.answer: Callable[[Item], Item | None] = lambda _: None
        self.lose: Callable[[Item], bool] = lambda _: False

    def install(self, tab: Any) -> None:
        tab.route_web_socket("**/v1", self._carry)

    def of(self, task_type: str) -> list[Item]:
        """The tasks of this kind that were sent."""
        return [task for task in self.sent if task["taskType"] == task_type]

    def _carry(self, page: Any) -> None:
        server = page.connect_to_server()

        def to_server(message: bytes) -> None:
            for task in msgspec.msgpack.decode(message):
                self.sent.append(task)
                error = self.answer(task)
                if error is None:
                    server.send(msgspec.msgpack.encode([task]))
                else:
                    item = {"taskType": task["taskType"], "taskUUID": task.get("taskUUID")} | error
                    page.send(msgspec.msgpack.encode({"errors": [item]}))

        def to_page(message: bytes) -> None:
            reply = msgspec.msgpack.decode(message)
            if not any(self.lose(item) for item in reply.get("data", [])):
                page.send(message)

        page.on_message(to_server)
        server.on_message(to_page)
