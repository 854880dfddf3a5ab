"""Jobs: tasks of the account, with the UUIDs that they have elsewhere."""

import math
from typing import Any, Literal

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from server.http.providers.bodies import read_json
from server.http.providers.caller import Caller, not_offered, wrong
from server.http.providers.scenario.notation import creative_units, iso_time
from server.protocol.errors import ErrorItem
from server.protocol.replies import Progress
from server.state.records import TaskRecord

__all__ = ["Action", "act_on_job", "get_job", "job_item", "list_jobs"]


class Action(Struct, frozen=True):
    """What is to be done with a job."""

    action: Literal["cancel"]


async def get_job(request: Request, caller: Caller) -> Response:
    """How far a job is."""
    await caller.linger(request.path_params["id"])
    return JSONResponse({"job": await job_item(request.path_params["id"], caller)})


async def list_jobs(request: Request, caller: Caller) -> Response:
    """The account's jobs, the newest first, some at a time."""
    query = request.query_params
    for name in ("createdAfter", "updatedAfter", "workflowId"):
        if query.get(name):
            raise not_offered(name, f"{name}: jobs are listed by page and status only")
    limit = int(_number(request, "pageSize", 50, 1, 100))
    records = await caller.latest(limit, _number(request, "paginationToken", math.inf, 0, math.inf))
    jobs = [await _item(record, caller) for record in records]
    types = set(filter(None, (query.get("types") or query.get("type", "")).split(",")))
    listed = [
        job
        for job in jobs
        if query.get("status", job["status"]) == job["status"] and (not types or job["jobType"] in types)
    ]
    following = {"nextPaginationToken": repr(records[-1].created)} if len(records) == limit else {}
    return JSONResponse({"jobs": listed, **following})


async def act_on_job(request: Request, caller: Caller) -> Response:
    """Cancel a job."""
    await read_json(request, Action)
    record = await caller.record(request.path_params["id"])
    await caller.cancel(record.task_uuid)
    return JSONResponse({"job": await job_item(record.task_uuid, caller)})


async def job_item(given: str, caller: Caller) -> dict[str, Any]:
    """A job of the account as it stands.

    Raises:
        NotFoundError: if it has no such job.
    """
    return await _item(await caller.record(given), caller)


async def _item(record: TaskRecord, caller: Caller) -> dict[str, Any]:
    item = await caller.standing(record)
    assets: list[str] = []
    metadata: dict[str, Any] = {"input": {}}
    progress = 0.0
    if isinstance(item, ErrorItem):
        status = "canceled" if item.code == "taskCancelled" else "failure"
        metadata["error"] = item.message
    elif isinstance(item, Progress):
        progress = caller.share(item)
        status = "in-progress" if progress else "queued"
    else:
        assets, status, progress = [item.image_uuid or ""], "success", 1.0
    updated = iso_time(record.created if record.finished is None else record.finished)
    return {
        "jobId": record.task_uuid,
        "jobType": "upscale",
        "status": status,
        "progress": progress,
        "createdAt": iso_time(record.created),
        "updatedAt": updated,
        "statusHistory": [{"date": updated, "status": status}],
        "metadata": metadata | {"assetIds": assets},
        "billing": {"cuCost": creative_units(caller.cost(record)), "cuDiscount": 0},
        "authorId": caller.owner,
        "ownerId": caller.owner,
    }


def _number(request: Request, name: str, default: float, least: float, most: float) -> float:
    """A number of the query."""
    given = request.query_params.get(name)
    try:
        number = default if given is None else float(given)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise wrong(name, f"{name} must be from {least:g} to {most:g}")
    return number
