"""What a token may do: what a page needs, and nothing that is the account's own affair."""

from typing import Final

from server.protocol.errors import ForbiddenError, expired_token
from server.protocol.requests import (
    Cancel,
    GetResponse,
    GetTaskDetails,
    ImageUpload,
    MediaStorage,
    ModelSearch,
    Ping,
    Task,
    Upscale,
)
from server.state.logins import Login

__all__ = ["permit"]

_OFFERED: Final = (
    Ping | ImageUpload | MediaStorage | Upscale | GetResponse | GetTaskDetails | ModelSearch | Cancel
)


def permit(task: Task, login: Login, now: float) -> None:
    """See that a task is one that the client may send: with a key all are.

    Args:
        task: as it was sent.
        login: of the client.
        now: the time in seconds since the epoch.

    Raises:
        AuthenticationError: if its token has expired.
        ForbiddenError: if tokens may not do this.
    """
    if login.grant is None:
        return
    if login.grant.expires <= now:
        raise expired_token()
    if not isinstance(task, _OFFERED):
        raise ForbiddenError(
            "tokenScopeApiKey", f"a token cannot be used for {task.__struct_config__.tag}: use a key"
        )
    if isinstance(task, MediaStorage) and task.operation == "delete":
        raise ForbiddenError("tokenScopeApiKey", "a token cannot delete images: use a key", "operation")
    if isinstance(task, Upscale):
        for name, url in (("webhookURL", task.webhook_url), ("uploadEndpoint", task.upload_endpoint)):
            if url is not None:
                raise ForbiddenError("tokenScopeApiKey", f"a token cannot name a {name}: use a key", name)
