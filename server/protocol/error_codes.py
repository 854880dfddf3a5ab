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
        "The API key is not known here, or was revoked.",
        "Use a key that `tilewire keys create` printed; `tilewire keys list` shows which are valid.",
    ),
    "tokenExpiredApiKey": ErrorCode(
        401,
        "The token has expired. The tasks that it began go on.",
        "Renewable: get a new token, and authenticate with it and the old one as `previousApiKey`.",
    ),
    "tokenScopeApiKey": ErrorCode(
        403,
        "Tokens are not for this: they neither see the account nor name webhooks or upload endpoints.",
        "Do it where the key is: in your backend.",
    ),
    "tokenOriginApiKey": ErrorCode(
        403,
        "The token is for pages of other origins, or for pages and a program sent it.",
        "Name the page's origin in `allowedOrigins` when you make the token.",
    ),
    "tokenQuotaExceeded": ErrorCode(
        429, "The token has begun as many tasks as its `maxTasks` allows.", "Get a new token."
    ),
    "tokenInsufficientCredits": ErrorCode(
        402,
        "The task costs more than is left of the token's `maxCost`.",
        "Get a new token, or ask for a smaller image.",
    ),
    "insufficientCredits": ErrorCode(
        402,
        "The account's balance does not cover the task.",
        "Add credit to the account, or ask for a smaller image.",
    ),
    "invalidFrame": ErrorCode(
        400,
        "The message is not JSON (or MessagePack), or holds no tasks.",
        "Send an array of task objects, each with a `taskType`.",
    ),
    "invalidFrameSize": ErrorCode(
        413,
        "The body of a POST is larger than the server takes. A socket is closed with 1009 instead.",
        "Send fewer tasks at once, or upload images one by one, and the key in the header `Authorization`.",
    ),
    "bodyTimeout": ErrorCode(
        408, "The body of a POST did not arrive in time.", "Send less at once, or over a faster connection."
    ),
    "unsupportedTaskType": ErrorCode(
        400, "The server has no such kind of task.", "Use one of those that the message names."
    ),
    "unsupportedParameter": ErrorCode(
        400,
        "The task has a parameter that does not exist, and whose name is nearly that of one which does. "
        "Or, by another service's API: the parameter is not offered here.",
        "Correct the name, as the message says, or leave the parameter out.",
    ),
    "imageNotFound": ErrorCode(
        404,
        "The account has no image of this UUID, or no longer.",
        "Check the UUID. Images are deleted when their `ttl` has passed: upload the image again.",
    ),
    "imageExpired": ErrorCode(
        404,
        "The image was deleted while the task waited, or the result's `ttl` has passed; or the result were "
        "raw pixels that were not stored, and are no longer in memory.",
        "Upload the image again, or send the task again under a new `taskUUID`.",
    ),
    "taskNotFound": ErrorCode(
        404,
        "The account has no such task; for `cancel`, none that is still under way.",
        "Check the UUID. A task that has ended cannot be cancelled.",
    ),
    "invalidParameter": ErrorCode(
        400, "By another service's API: a parameter is missing or has a wrong value.", "The message names it."
    ),
    "modelNotFound": ErrorCode(
        404,
        "There is no model or engine of this name, by another service's API.",
        "Ask that API for its list of models: it has those that are installed.",
    ),
    "endpointNotFound": ErrorCode(
        404,
        "Another service's API has no such endpoint here, or not with this method of HTTP.",
        "`/openapi.json` lists the endpoints that are there.",
    ),
    "conflictTaskUUID": ErrorCode(
        409,
        "The `taskUUID` was used for another request before.",
        "Use a new UUID for each request; repeat one only to ask for the same result again.",
    ),
    "taskCancelled": ErrorCode(
        409,
        "The task was cancelled. It costs nothing, but for tiles that were sent by then; if its result was "
        "already being sent to `uploadEndpoint`, its price. The message says so.",
        "Nothing. A result that is kept can be had by `getResponse`.",
    ),
    "frameDropped": ErrorCode(
        409,
        "A newer frame of the stream came while this one waited; it costs nothing.",
        "Nothing: the newer frame follows. To get all frames, leave `sequence.latest` out.",
    ),
    "nsfwContentDetected": ErrorCode(
        400,
        "The input or the result may not be safe for work, and the task or the server refuses that; it costs "
        "nothing.",
        "Use another image. The checker errs at times: ask whoever runs the server.",
    ),
    "downloadFailed": ErrorCode(
        400,
        "The input could not be fetched from its URL.",
        "Check that the URL is public and answers quickly, with status 200 and an image of allowed size.",
    ),
    "uploadFailed": ErrorCode(
        400,
        "The result could not be sent to `uploadEndpoint`. It is kept, and charged.",
        "Get it by `getResponse`. Check that the endpoint answers a PUT with a status of 200 to 299.",
    ),
    "authenticationRateLimit": ErrorCode(
        429,
        "Too many API keys from this address were wrong of late; none is looked at for a while.",
        "Check the key, and try again after `retryAfter` seconds.",
    ),
    "connectionRateLimit": ErrorCode(
        429,
        "The account, or the address, has as many connections open as it may have.",
        "Close some, or send more tasks through each.",
    ),
    "requestRateLimit": ErrorCode(
        429,
        "The account sent too many tasks of late, or the address too many requests.",
        "Send the task again after `retryAfter` seconds; the message names the limit.",
    ),
    "replyRateLimit": ErrorCode(
        429,
        "The answer to this POST holds as many images as it may. The task is done.",
        "Ask for its result by `getResponse`, or for URLs in place of images.",
    ),
    "uploadQuotaExceeded": ErrorCode(
        429,
        "The account sent as many bytes of images as it may within an hour.",
        "Try again after `retryAfter` seconds. Images that were uploaded before can be named by UUID.",
    ),
    "storageQuotaExceeded": ErrorCode(
        429,
        "The account keeps as many bytes of images, inputs and results, as it may (`max_stored_bytes`).",
        "Delete some by `mediaStorage`, or ask for a shorter `ttl`: what has expired counts no more.",
    ),
    "taskRateLimit": ErrorCode(
        429,
        "The account has as many unfinished tasks as it may have, or as many bytes of raw pixels in them.",
        "Wait for some of them, or `retryAfter` seconds; then send the task again.",
    ),
    "serviceUnavailable": ErrorCode(
        503,
        "The server has as many unfinished tasks as it takes, of all accounts together; or it is stopping; "
        "or it cannot use its database or its image store just now; or raw pixels that were not stored are "
        "gone with the server that had them.",
        "Send the same task again after `retryAfter` seconds. It is charged once, when it succeeds.",
    ),
    "taskTimeout": ErrorCode(
        504,
        "The task did not end in time; it costs nothing, but for tiles that were sent by then.",
        "Send it again when the server has less to do, or ask for a smaller image.",
    ),
    "internalServerError": ErrorCode(
        500,
        "The server failed; the task costs nothing, but for tiles that were sent by then.",
        "Send it again. If it fails again, look at the server's log.",
    ),
}

FAMILIES: Final[Mapping[str, ErrorCode]] = {
    "invalid": ErrorCode(
        400,
        "The parameter has a wrong type or value.",
        "The message says what is wrong; `type` is the type that the parameter has.",
    ),
    "missing": ErrorCode(400, "The task lacks the parameter.", "Add it."),
    "unsupported": ErrorCode(
        400, "The model or this server does not offer the parameter, or this value.", "Leave it out."
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
