"""Every code that an error may have: its HTTP status, what it means, and what to do.

The one list: replies take their status from it, `/docs/errors` explains it, a test
compares it with the source.
"""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

__all__ = ["CODES", "FAMILIES", "ErrorCode", "error_label", "error_status"]


class ErrorCode(Struct, frozen=True):
    """What there is to know of a code.

    Attributes:
        status: the HTTP status of a POST that ends with it.
    """

    status: int
    meaning: str
    advice: str


CODES: Final[Mapping[str, ErrorCode]] = {
    "missingApiKey": ErrorCode(
        401,
        "There is no API key, or a task came before the authentication.",
        "Over a socket, send an `authentication` task first. Over HTTP, send `Authorization: Bearer KEY`.",
    ),
    "invalidApiKey": ErrorCode(
        401,
        "The API key is unknown, or was revoked.",
        "Use a key that `tilewire keys create` printed; `tilewire keys list` shows which are valid.",
    ),
    "tokenExpiredApiKey": ErrorCode(
        401,
        "The token has expired. Tasks that it began go on.",
        "Get a new token, and authenticate with it and the old one as `previousApiKey`.",
    ),
    "tokenScopeApiKey": ErrorCode(
        403,
        "Tokens may not do this: they neither see the account nor set webhooks or upload endpoints.",
        "Do it in your backend, with the key.",
    ),
    "tokenOriginApiKey": ErrorCode(
        403,
        "The token is for pages of other origins, or only for pages, and a program sent it.",
        "Name the page's origin in `allowedOrigins` when you make the token.",
    ),
    "tokenQuotaExceeded": ErrorCode(
        429, "The token has begun as many tasks as its `maxTasks` allows.", "Get a new token."
    ),
    "tokenInsufficientCredits": ErrorCode(
        402,
        "The task costs more than what is left of the token's `maxCost`.",
        "Get a new token, or ask for a smaller image.",
    ),
    "insufficientCredits": ErrorCode(
        402,
        "The account's balance does not cover the task.",
        "Add credit to the account, or ask for a smaller image.",
    ),
    "invalidFrame": ErrorCode(
        400,
        "The message is not JSON (or MessagePack), or contains no tasks.",
        "Send an array of task objects, each with a `taskType`.",
    ),
    "invalidFrameSize": ErrorCode(
        413,
        "The body of a POST is larger than the server accepts. A socket is closed with 1009 instead.",
        "Send fewer tasks at once, or upload images singly, and send the key in the header `Authorization`.",
    ),
    "bodyTimeout": ErrorCode(
        408, "The body of a POST did not arrive in time.", "Send less at once, or use a faster connection."
    ),
    "unsupportedTaskType": ErrorCode(
        400, "The server has no such task type.", "Use one of those that the message names."
    ),
    "unsupportedParameter": ErrorCode(
        400,
        "The task has an unknown parameter whose name is similar to a known one. "
        "Or, in another service's API: the parameter is not supported.",
        "Correct the name, as the message says, or leave the parameter out.",
    ),
    "imageNotFound": ErrorCode(
        404,
        "The account has no image with this UUID, or no longer has it.",
        "Check the UUID. If the image's `ttl` has passed, upload it again.",
    ),
    "imageExpired": ErrorCode(
        404,
        "The image was deleted while the task waited, or the result's `ttl` has passed, or the result was "
        "raw pixels that were not stored and are no longer in memory.",
        "Upload the image again, or send the task again under a new `taskUUID`.",
    ),
    "taskNotFound": ErrorCode(
        404,
        "The account has no such task, or, for `cancel`, no such task that is unfinished.",
        "Check the UUID. A task that has ended cannot be cancelled.",
    ),
    "invalidParameter": ErrorCode(
        400, "In another service's API: a parameter is missing or has a wrong value.", "The message names it."
    ),
    "modelNotFound": ErrorCode(
        404,
        "In another service's API: there is no model or engine with this name.",
        "That API's list of models contains those that are installed.",
    ),
    "endpointNotFound": ErrorCode(
        404,
        "Tilewire does not have this endpoint of another service's API, or not with this HTTP method.",
        "`/openapi.json` lists the available endpoints.",
    ),
    "conflictTaskUUID": ErrorCode(
        409,
        "The `taskUUID` was used before, for a different request.",
        "Use a new UUID for each request; repeat it only to get the same result again.",
    ),
    "taskCancelled": ErrorCode(
        409,
        "The task was cancelled. It costs nothing, except for tiles that were already sent; if its result "
        "was already being sent to `uploadEndpoint`, it costs its price. The message says so.",
        "Nothing. If the result was kept, `getResponse` returns it.",
    ),
    "frameDropped": ErrorCode(
        409,
        "A newer frame of the stream arrived while this one waited; it costs nothing.",
        "Nothing: the newer frame follows. To get all frames, leave `sequence.latest` out.",
    ),
    "nsfwContentDetected": ErrorCode(
        400,
        "The input or the result may not be safe for work, and the task or the server refuses that; it costs "
        "nothing.",
        "Use another image. The check can be wrong: ask the operator of the server.",
    ),
    "downloadFailed": ErrorCode(
        400,
        "The input could not be fetched from its URL.",
        "Check that the URL is public and answers quickly, with status 200 and an image of allowed size.",
    ),
    "uploadFailed": ErrorCode(
        400,
        "The result could not be sent to `uploadEndpoint`. It is kept, and charged.",
        "Get it with `getResponse`. Check that the endpoint answers a PUT with a status of 200 to 299.",
    ),
    "authenticationRateLimit": ErrorCode(
        429,
        "Too many API keys from this address were wrong recently. Valid keys are still accepted.",
        "Check the key, and try again after `retryAfter` seconds.",
    ),
    "connectionRateLimit": ErrorCode(
        429,
        "The account or the address has as many open connections as it may have.",
        "Close some, and send several tasks over each.",
    ),
    "requestRateLimit": ErrorCode(
        429,
        "The account sent too many tasks recently, or the address too many requests.",
        "Send the task again after `retryAfter` seconds; the message names the limit.",
    ),
    "replyRateLimit": ErrorCode(
        429,
        "The answer to this POST already contains as many images as it may. The task is done.",
        "Get its result with `getResponse`, or ask for URLs instead of images.",
    ),
    "uploadQuotaExceeded": ErrorCode(
        429,
        "The account has sent as many bytes of images as it may within an hour.",
        "Try again after `retryAfter` seconds. Name images that were uploaded before by UUID.",
    ),
    "storageQuotaExceeded": ErrorCode(
        429,
        "The account has stored as many bytes of images as it may, inputs and results (`max_stored_bytes`).",
        "Delete some with `mediaStorage`, or ask for a shorter `ttl`: expired images do not count.",
    ),
    "taskRateLimit": ErrorCode(
        429,
        "The account has as many unfinished tasks as it may have, or as many bytes of raw pixels in them.",
        "Wait until some have ended, or for `retryAfter` seconds, and send the task again.",
    ),
    "serviceUnavailable": ErrorCode(
        503,
        "The server has too many unfinished tasks of all accounts, is stopping, or cannot use its database "
        "or image store at the moment; or raw pixels that were not stored were lost with their server.",
        "Send the same task again after `retryAfter` seconds. It is charged once, when it succeeds.",
    ),
    "taskTimeout": ErrorCode(
        504,
        "The task did not end in time; it costs nothing, except for tiles that were already sent.",
        "Send it again when the server is less busy, or ask for a smaller image.",
    ),
    "internalServerError": ErrorCode(
        500,
        "The server failed; the task costs nothing, except for tiles that were already sent.",
        "Send it again. If it fails again, look at the server's log.",
    ),
}

FAMILIES: Final[Mapping[str, ErrorCode]] = {
    "invalid": ErrorCode(
        400,
        "The parameter has a wrong type or value.",
        "The message says what is wrong; `type` is the expected type.",
    ),
    "missing": ErrorCode(400, "The parameter is missing.", "Add it."),
    "unsupported": ErrorCode(
        400, "The model or this server does not support the parameter, or this value.", "Leave it out."
    ),
}
"""Codes that are made of one of these words and the name of a parameter, such as `invalidUpscaleFactor`."""


def error_status(code: str) -> int:
    """The HTTP status of an error; recorded ones are known by their code only."""
    return CODES[code].status if code in CODES else 400


def error_label(code: str) -> str:
    """The code itself, or its family where it is made of a parameter's name: clients choose some of these."""
    if code in CODES:
        return code
    return next((f"{family}Parameter" for family in FAMILIES if code.startswith(family)), "other")
