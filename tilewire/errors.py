"""Everything that the client raises of its own.

TilewireError
├── UnreachableError               there is no connection, and patience ran out
└── TaskFailedError                the server answered a task with an error
    ├── AuthenticationFailedError  401  the API key is not valid
    ├── InsufficientCreditsError   402  the account's balance does not cover the task
    ├── NotFoundError              404  no such task or image, or no longer
    ├── TaskCancelledError         409  the task was cancelled
    ├── FrameDroppedError          409  a newer frame of its stream came while it waited
    └── BusyError                  429, 503  too much at once, and patience ran out

A file that cannot be read is an OSError as always.
"""

from tilewire.wire import ErrorItem

__all__ = [
    "AuthenticationFailedError",
    "BusyError",
    "FrameDroppedError",
    "InsufficientCreditsError",
    "NotFoundError",
    "TaskCancelledError",
    "TaskFailedError",
    "TilewireError",
    "UnreachableError",
    "failure",
]


class TilewireError(Exception):
    """Base of all of them; the message is fit to be shown."""


class UnreachableError(TilewireError):
    """The connection could not be made, or was lost and did not come back in time."""


class TaskFailedError(TilewireError):
    """The server answered with an error.

    Attributes:
        code: a stable name; `/docs/errors` on the server explains them all.
        message: what was wrong, and what would be right.
        parameter: the path of the parameter at fault, as it is on the wire, such as `inputs.image`.
        task_uuid: of the task.
        retry_after: seconds after which the same task may be sent again, where waiting helps.
    """

    def __init__(self, item: ErrorItem) -> None:
        super().__init__(item.message)
        self.code = item.code
        self.message = item.message
        self.parameter = item.parameter or None
        self.task_uuid = item.task_uuid or None
        self.retry_after = item.retry_after


class AuthenticationFailedError(TaskFailedError):
    """The API key is not valid."""


class InsufficientCreditsError(TaskFailedError):
    """The account's balance does not cover the task."""


class NotFoundError(TaskFailedError):
    """The account has no such task or image, or no longer."""


class TaskCancelledError(TaskFailedError):
    """The task was cancelled; it costs what was sent of its result by then."""


class FrameDroppedError(TaskFailedError):
    """A newer frame of the stream came while this one waited; it costs nothing."""


class BusyError(TaskFailedError):
    """The server has too much to do, and did not take the task within the client's patience."""


def failure(item: ErrorItem) -> TaskFailedError:
    """Give the exception that an error of the server's becomes; its code says which, by families of names."""
    code = item.code
    kind = TaskFailedError
    if code == "taskCancelled":
        kind = TaskCancelledError
    elif code == "frameDropped":
        kind = FrameDroppedError
    elif code.endswith("ApiKey"):
        kind = AuthenticationFailedError
    elif code.endswith("Credits"):
        kind = InsufficientCreditsError
    elif code.endswith(("NotFound", "Expired")):
        kind = NotFoundError
    elif code.endswith("RateLimit") or "Quota" in code or code == "serviceUnavailable":
        kind = BusyError
    return kind(item)
