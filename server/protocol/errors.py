"""Everything that can go wrong for a client.

TaskError
├── FrameError                  400  the frame is not JSON (or MessagePack), or not tasks
├── FrameTooLargeError          413  the body of a POST is larger than the server takes
├── ParameterError              400  missing…, invalid… or unsupported… with the parameter's name
├── BodyTimeoutError            408  the body of a POST did not arrive in time
├── AuthenticationError         401  no key, a wrong one, or none yet
├── InsufficientCreditsError    402  the account's balance does not cover the task
├── NotFoundError               404  no such task or image, or expired
├── ConflictError               409  the taskUUID names another request
├── RateLimitError              429  too much at once; try again later
├── QuotaError                  429  too much in an hour; try again later
├── TaskCancelledError          409  cancelled by the client
├── TransferError               400  an image could not be fetched, or a result not uploaded
├── BusyError                   503  too much of all accounts at once; try again later
├── TaskTimeoutError            504  the task did not end in time
└── ServerError                 500  our fault; the log has the reason

The names of the codes are in families that Runware's SDKs map to their own error classes (`errors.py` of
runware-sdk 1.8): a code begins with `invalid`, `missing`, `unsupported`, `conflict`, ends in `NotFound`, or
contains `ApiKey`, `Credits`, `Quota`, `RateLimit` or `Timeout`.
"""

from typing import ClassVar, Final

from msgspec import UNSET, Struct, UnsetType

from server.protocol.names import wire_name

__all__ = [
    "AuthenticationError",
    "BodyTimeoutError",
    "BusyError",
    "ConflictError",
    "ErrorItem",
    "FrameError",
    "FrameTooLargeError",
    "InsufficientCreditsError",
    "NotFoundError",
    "ParameterError",
    "QuotaError",
    "RateLimitError",
    "ServerError",
    "TaskCancelledError",
    "TaskError",
    "TaskTimeoutError",
    "TransferError",
    "error_classes",
    "error_status",
    "invalid",
    "missing",
    "unsupported",
]


_MAX_NAME: Final = 128
_MAX_MESSAGE: Final = 1000


class ErrorItem(Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name):
    """One element of `errors`.

    Attributes:
        code: a stable name.
        message: for people; says what was wrong and what would be right.
        parameter: the path of the parameter at fault, such as `inputs.image`.
        type: the type that the parameter should have had.
        task_type, task_uuid: of the task at fault, wherever they could be read: the SDKs tell an error
            without a `taskUUID` to all calls that are waiting.
        documentation: where the code is explained.
        retry_after: seconds after which the same task may be sent again, where waiting helps.
    """

    code: str
    message: str
    parameter: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    task_type: str | UnsetType = UNSET
    task_uuid: str | UnsetType = UNSET
    documentation: str | UnsetType = UNSET
    retry_after: int | UnsetType = UNSET


class TaskError(Exception):
    """Base of everything that a client may see.

    Attributes:
        status: the HTTP status of a POST that ends with this error.
        advice: what to do about it, for the documentation.
    """

    status: ClassVar[int]
    advice: ClassVar[str]

    def __init__(
        self,
        code: str,
        message: str,
        parameter: str | None = None,
        kind: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.parameter = parameter
        self.kind = kind
        self.retry_after = retry_after

    def item(self, task_type: str | None, task_uuid: str | None, documentation: str | None) -> ErrorItem:
        """The error as it goes over the wire, for the task it belongs to.

        What it quotes from the client is cut where that is absurdly long.
        """
        return ErrorItem(
            code=self.code[:_MAX_NAME],
            message=self.message[:_MAX_MESSAGE],
            parameter=self.parameter[:_MAX_NAME] if self.parameter else UNSET,
            type=self.kind or UNSET,
            task_type=task_type or UNSET,
            task_uuid=task_uuid or UNSET,
            documentation=f"{documentation}#{type(self).__name__}" if documentation else UNSET,
            retry_after=self.retry_after or UNSET,
        )


class FrameError(TaskError):
    """The frame is not JSON (or MessagePack), or does not hold tasks."""

    status = 400
    advice = "Send a JSON array of task objects, each with a taskType."

    def __init__(self, message: str) -> None:
        super().__init__("invalidFrame", message)


class FrameTooLargeError(TaskError):
    """The body of a POST is larger than the server takes; over a socket the connection closes with 1009."""

    status = 413
    advice = "Send fewer tasks at once, or upload images one by one."

    def __init__(self, limit: int) -> None:
        super().__init__(
            "invalidFrameSize",
            f"the body is larger than {limit} bytes (without the header Authorization less is taken)",
        )


class BodyTimeoutError(TaskError):
    """The body of a POST did not arrive in time."""

    status = 408
    advice = "Send less at once, or over a faster connection."

    def __init__(self, limit: float) -> None:
        super().__init__("bodyTimeout", f"the body did not arrive within {limit:g} seconds")


class ParameterError(TaskError):
    """A parameter is missing, has a wrong value, or asks for what the model or the server does not offer."""

    status = 400
    advice = "Correct the parameter that the error names."


class AuthenticationError(TaskError):
    """There is no API key, or it is not valid."""

    status = 401
    advice = "Authenticate first, with a key that `tilewire keys create` printed and that is not revoked."


class InsufficientCreditsError(TaskError):
    """The account's balance does not cover the task."""

    status = 402
    advice = "Add credit to the account, or ask for a smaller image."

    def __init__(self, message: str) -> None:
        super().__init__("insufficientCredits", message)


class NotFoundError(TaskError):
    """There is no such task or image in this account, or it has expired."""

    status = 404
    advice = "Check the UUID; images are deleted when their ttl has passed."


class ConflictError(TaskError):
    """The taskUUID was used for another request before."""

    status = 409
    advice = "Use a new UUID for each request; repeat one only to ask for the same result again."

    def __init__(self, message: str) -> None:
        super().__init__("conflictTaskUUID", message, "taskUUID")


class RateLimitError(TaskError):
    """More was asked for at once than the server allows."""

    status = 429
    advice = "Send the task again after as many seconds as `retryAfter` says; the message names the limit."


class QuotaError(TaskError):
    """The account sent more within an hour than the server takes."""

    status = 429
    advice = "Send the task again after as many seconds as `retryAfter` says; images sent before have a UUID."


class TaskCancelledError(TaskError):
    """The task was cancelled by a `cancel` task; it costs nothing."""

    status = 409
    advice = "Nothing to do."

    def __init__(self) -> None:
        super().__init__("taskCancelled", "the task was cancelled")


class TransferError(TaskError):
    """An input could not be fetched from its URL, or a result not sent to its endpoint."""

    status = 400
    advice = "Check that the URL is public and answers quickly with an image of allowed size."


class BusyError(TaskError):
    """The server has as many tasks under way as it takes, of all accounts together."""

    status = 503
    advice = "Send the task again after as many seconds as `retryAfter` says."

    def __init__(self, retry_after: int) -> None:
        super().__init__(
            "serviceUnavailable",
            f"the server is busy; try again in about {retry_after} seconds",
            retry_after=retry_after,
        )


class TaskTimeoutError(TaskError):
    """The task did not end in time; it costs nothing."""

    status = 504
    advice = "Send the task again when the server has less to do, or ask for a smaller image."

    def __init__(self, limit: float) -> None:
        super().__init__("taskTimeout", f"the task did not end within {limit:g} seconds")


class ServerError(TaskError):
    """The server failed; the task costs nothing."""

    status = 500
    advice = "Send the task again; if it fails again, look at the server's log."

    def __init__(self, message: str = "the server failed to do this task") -> None:
        super().__init__("internalServerError", message)


_KIND_OF_CODE: dict[str, type[TaskError]] = {
    "invalidFrame": FrameError,
    "invalidFrameSize": FrameTooLargeError,
    "unsupportedTaskType": ParameterError,
    "missingApiKey": AuthenticationError,
    "invalidApiKey": AuthenticationError,
    "insufficientCredits": InsufficientCreditsError,
    "imageNotFound": NotFoundError,
    "imageExpired": NotFoundError,
    "taskNotFound": NotFoundError,
    "conflictTaskUUID": ConflictError,
    "authenticationRateLimit": RateLimitError,
    "connectionRateLimit": RateLimitError,
    "replyRateLimit": RateLimitError,
    "requestRateLimit": RateLimitError,
    "taskRateLimit": RateLimitError,
    "uploadQuotaExceeded": QuotaError,
    "bodyTimeout": BodyTimeoutError,
    "taskCancelled": TaskCancelledError,
    "downloadFailed": TransferError,
    "uploadFailed": TransferError,
    "serviceUnavailable": BusyError,
    "taskTimeout": TaskTimeoutError,
    "internalServerError": ServerError,
}


def error_classes() -> list[type[TaskError]]:
    """All kinds of errors, in the order of the hierarchy above."""
    return TaskError.__subclasses__()


def error_status(code: str) -> int:
    """The HTTP status of an error; recorded ones are known by their code only."""
    return _KIND_OF_CODE.get(code, ParameterError).status


def invalid(parameter: str, message: str, kind: str | None = None) -> ParameterError:
    """A parameter with a wrong type or value."""
    return ParameterError(_code("invalid", parameter), message, parameter, kind)


def missing(parameter: str, message: str | None = None) -> ParameterError:
    """A parameter that the task needs."""
    return ParameterError(_code("missing", parameter), message or f"{parameter} is required", parameter)


def unsupported(parameter: str, message: str) -> ParameterError:
    """A parameter, or a value of it, that the model or this server does not offer."""
    return ParameterError(_code("unsupported", parameter), message, parameter)


def _code(prefix: str, parameter: str) -> str:
    return prefix + "".join(part[:1].upper() + part[1:] for part in parameter.split("."))
