"""Everything that can go wrong for a client.

TaskError
├── FrameError                  400  the frame is not JSON (or MessagePack), or not tasks
├── FrameTooLargeError          413  the body of a POST is larger than the server takes
├── ParameterError              400  missing…, invalid… or unsupported… with the parameter's name
├── BodyTimeoutError            408  the body of a POST did not arrive in time
├── AuthenticationError         401  no key, a wrong one, or none yet
├── InsufficientCreditsError    402  the account's balance, or the token's limit, does not cover the task
├── ForbiddenError              403  a token cannot be used for this, or by this page
├── NotFoundError               404  no such task or image, or expired
├── ConflictError               409  the taskUUID names another request
├── RateLimitError              429  too much at once; try again later
├── QuotaError                  429  too much in an hour, or for the token
├── TaskCancelledError          409  cancelled by the client
├── FrameDroppedError           409  a newer frame of its stream came while it waited
├── NsfwContentError            400  what is not safe for work was found, and is refused
├── TransferError               400  an image could not be fetched, or a result not uploaded
├── BusyError                   503  too much of all accounts at once; try again later
├── UnavailableError            503  the image store fails, or the server stops; try again later
├── DatabaseUnavailableError    503  the database is locked, full, or away; try again later
├── TaskTimeoutError            504  the task did not end in time
└── ServerError                 500  our fault; the log has the reason

The names of the codes are in families that Runware's SDKs map to their own error classes (`errors.py` of
runware-sdk 1.8): a code begins with `invalid`, `missing`, `unsupported`, `conflict`, ends in `NotFound`, or
contains `ApiKey`, `Credits`, `Quota`, `RateLimit` or `Timeout`.
"""

from typing import Annotated, Final

from msgspec import UNSET, Meta, Struct, UnsetType

from server.protocol.fields import Usd
from server.protocol.names import wire_name
from server.protocol.replies import WebhookItem

__all__ = [
    "AuthenticationError",
    "BodyTimeoutError",
    "BusyError",
    "ConflictError",
    "DatabaseUnavailableError",
    "ErrorItem",
    "ForbiddenError",
    "FrameDroppedError",
    "FrameError",
    "FrameTooLargeError",
    "InsufficientCreditsError",
    "NotFoundError",
    "NsfwContentError",
    "ParameterError",
    "QuotaError",
    "RateLimitError",
    "ServerError",
    "TaskCancelledError",
    "TaskError",
    "TaskTimeoutError",
    "TransferError",
    "UnavailableError",
    "expired_token",
    "invalid",
    "missing",
    "unsupported",
]


_MAX_NAME: Final = 128
_RETRY_DATABASE_AFTER: Final = 5
_MAX_MESSAGE: Final = 1000


class ErrorItem(Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire_name):
    """One element of `errors`."""

    code: Annotated[str, Meta(description="A stable name; `/docs/errors` lists them all.")]
    message: Annotated[str, Meta(description="For people: what was wrong, and what would be right.")]
    parameter: Annotated[
        str | UnsetType, Meta(description="The path of the parameter at fault, such as `inputs.image`.")
    ] = UNSET
    type: Annotated[str | UnsetType, Meta(description="The type that the parameter should have had.")] = UNSET
    task_type: Annotated[str | UnsetType, Meta(description="Of the task, if it could be read.")] = UNSET
    # The SDKs tell an error without a `taskUUID` to all calls that are waiting.
    task_uuid: Annotated[str | UnsetType, Meta(description="Of the task, if it could be read.")] = UNSET
    documentation: Annotated[str | UnsetType, Meta(description="Where the code is explained.")] = UNSET
    retry_after: Annotated[
        int | UnsetType,
        Meta(description="Seconds after which the same task may be sent again, where waiting helps."),
    ] = UNSET
    cost: Annotated[
        Usd | UnsetType,
        Meta(description="US dollars that the task costs all the same; the message says for what."),
    ] = UNSET
    webhook: Annotated[
        WebhookItem | UnsetType,
        Meta(description="How far its webhook is; in the answer to `getResponse` only."),
    ] = UNSET


class TaskError(Exception):
    """Base of everything that a client may see.

    Attributes:
        code: one of `error_codes`.
    """

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
            documentation=f"{documentation}#{self.code}" if documentation else UNSET,
            retry_after=self.retry_after or UNSET,
        )


class FrameError(TaskError):
    """The frame is not JSON (or MessagePack), or does not hold tasks."""

    def __init__(self, message: str) -> None:
        super().__init__("invalidFrame", message)


class FrameTooLargeError(TaskError):
    """The body of a POST is larger than the server takes; over a socket the connection closes with 1009."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            "invalidFrameSize",
            f"the body is larger than {limit} bytes (without the header Authorization less is taken)",
        )


class BodyTimeoutError(TaskError):
    """The body of a POST did not arrive in time."""

    def __init__(self, limit: float) -> None:
        super().__init__("bodyTimeout", f"the body did not arrive within {limit:g} seconds")


class ParameterError(TaskError):
    """A parameter is missing, has a wrong value, or asks for what the model or the server does not offer."""


class AuthenticationError(TaskError):
    """There is no API key, or it is not valid."""


class ForbiddenError(TaskError):
    """A token cannot be used for this; a key can."""


class InsufficientCreditsError(TaskError):
    """The account's balance does not cover the task, or the token may not spend as much."""


class NotFoundError(TaskError):
    """There is no such task or image in this account, or it has expired."""


class ConflictError(TaskError):
    """The taskUUID was used for another request before."""

    def __init__(self, message: str) -> None:
        super().__init__("conflictTaskUUID", message, "taskUUID")


class RateLimitError(TaskError):
    """More was asked for at once than the server allows."""


class QuotaError(TaskError):
    """The account sent more within an hour than it may, or the token began as many tasks as it may."""


class TaskCancelledError(TaskError):
    """The task was cancelled by a `cancel` task; it costs what was sent of its result by then."""

    def __init__(self) -> None:
        super().__init__("taskCancelled", "the task was cancelled")


class FrameDroppedError(TaskError):
    """A newer frame of the stream came while this one waited; it costs nothing."""

    def __init__(self) -> None:
        super().__init__("frameDropped", "a newer frame of the stream came while this one waited")


class NsfwContentError(TaskError):
    """The input or the result may not be safe for work, which the task or the server does not want.

    Args:
        what: `the input` or `the result`.
        score: how probable it is, from 0 to 1.
    """

    def __init__(self, what: str, score: float) -> None:
        super().__init__("nsfwContentDetected", f"{what} may not be safe for work (score {score:.2f})")


class TransferError(TaskError):
    """An input could not be fetched from its URL, or a result not sent to its endpoint."""


class BusyError(TaskError):
    """The server has as many tasks under way as it takes, of all accounts together."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(
            "serviceUnavailable",
            f"the server is busy; try again in about {retry_after} seconds",
            retry_after=retry_after,
        )


class UnavailableError(TaskError):
    """The server cannot do this just now: it is stopping, or its image store cannot be used."""

    def __init__(self, message: str, retry_after: int = 10) -> None:
        super().__init__("serviceUnavailable", message, retry_after=retry_after)


class DatabaseUnavailableError(TaskError):
    """The server cannot use its database for now: it is locked, full, or cannot be reached.

    Attributes:
        may_be_done: whether what was to be done may have been done all the same, and the answer lost.
    """

    def __init__(self, *, may_be_done: bool = True) -> None:
        self.may_be_done = may_be_done
        super().__init__(
            "serviceUnavailable",
            "the server cannot use its database for now",
            retry_after=_RETRY_DATABASE_AFTER,
        )


class TaskTimeoutError(TaskError):
    """The task did not end in time; it costs what was sent of its result by then."""

    def __init__(self, limit: float) -> None:
        super().__init__("taskTimeout", f"the task did not end within {limit:g} seconds")


class ServerError(TaskError):
    """The server failed; the task costs what was sent of its result by then."""

    def __init__(self, message: str = "the server failed to do this task") -> None:
        super().__init__("internalServerError", message)


def expired_token() -> AuthenticationError:
    """The token's time is over. What it began goes on: who has it and a new one may see to it."""
    return AuthenticationError(
        "tokenExpiredApiKey", "the token has expired: authenticate with a new one", "apiKey"
    )


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
