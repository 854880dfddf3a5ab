"""What both versions have in common: the names of models, polls, and what is said of a task."""

from typing import Any, Final

from msgspec import UNSET
from starlette.requests import Request

from server.http.providers.caller import Caller, wrong
from server.http.providers.upscalers import model_called
from server.protocol.errors import ErrorItem
from server.protocol.replies import Progress, UpscaleResult
from server.state.records import TaskRecord

__all__ = ["POLL_NAMES", "Outcome", "detection", "model_named", "polled", "times"]

Outcome = UpscaleResult | ErrorItem | Progress

POLL_NAMES: Final = {"taskUUID": "task_id"}
"""What Novita calls the parameter of a poll."""


def model_named(name: str, parameter: str, caller: Caller) -> str:
    """The name that the model has here.

    Raises:
        ParameterError: naming `parameter`, if it is not installed.
    """
    model = model_called(caller.services.catalogue, name)
    if model is None:
        raise wrong(parameter, f"{parameter}: there is no model {name[:64]!r} here")
    return model.name


async def polled(request: Request, caller: Caller) -> tuple[TaskRecord, Outcome]:
    """The task that a client asks for, and how it stands.

    Raises:
        NotFoundError: if there is none.
    """
    task_id = request.query_params.get("task_id", "")
    await caller.linger(task_id)
    record = await caller.record(task_id)
    return record, await caller.standing(record)


def times(record: TaskRecord, *names: str) -> dict[str, int]:
    """When a task was taken on, and under the last name when it ended: 0 if it has not; in milliseconds."""
    taken_on, ended = (round(1000 * (time or 0)) for time in (record.created, record.finished))
    return {f"{name}_time_ms": ended if name == names[-1] else taken_on for name in names}


def detection(item: UpscaleResult) -> dict[str, Any] | None:
    """What was found of what is not safe for work, in percent; None if nobody looked."""
    if item.nsfw_scores is UNSET:
        return None
    score = max(item.nsfw_scores.input, item.nsfw_scores.result)
    return {"valid": True, "confidence": round(100 * score)}
