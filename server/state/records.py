"""What is recorded of a task: the request that it was accepted with, and how it ended."""

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import msgspec
from msgspec import Struct

from server.protocol.errors import ErrorItem
from server.state.accounts import AccountId
from server.state.claims import ServerId
from server.state.requests import UpscaleRequest

__all__ = ["Status", "StoredResult", "TaskRecord"]


class Status(StrEnum):
    """Where a task stands."""

    ACCEPTED = "accepted"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class StoredResult(Struct, frozen=True, omit_defaults=True):
    """What a finished upscale is rebuilt from: the image is in the store. `cost` in nanodollars."""

    image_uuid: str
    image_name: str
    input_image_uuid: str
    cost: int = 0


@dataclass(frozen=True)
class TaskRecord:
    """A task as recorded.

    Attributes:
        task_uuid: in lower case; the request has it as the client spelt it.
        encoded_request: the request, in JSON.
        session: where the outcome is to be sent.
        result: if it succeeded.
        error: if it failed.
        owner: the server that runs it.
    """

    account: AccountId
    task_uuid: str
    encoded_request: bytes
    session: str | None
    status: Status
    result: StoredResult | None
    error: ErrorItem | None
    owner: ServerId | None = None

    @cached_property
    def request(self) -> UpscaleRequest:
        """What the client asked for; decoded once, when it is first needed.

        Raises:
            DecodeError: if another version of the server accepted it, and this one cannot read it.
        """
        return msgspec.json.decode(self.encoded_request, type=UpscaleRequest)
