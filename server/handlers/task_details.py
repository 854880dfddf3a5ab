"""`getTaskDetails`: an earlier task as it was sent, and its answer."""

from typing import Any, Final

from msgspec import to_builtins

from engines import Diffusion
from server.handlers.context import Context
from server.protocol.errors import ErrorItem, NotFoundError
from server.protocol.names import wire_name
from server.protocol.replies import TaskDetails
from server.protocol.requests import GetTaskDetails, OutputFormat
from server.protocol.sources import RemoteImage, StoredImage, UnstoredImage
from server.state import tasks
from server.state.requests import UpscaleRequest

__all__ = ["handle"]

_NAMES: Final = {"factor": "upscaleFactor", "output_types": "outputType"}
_OTHERWISE: Final = (
    "source", "parameter", "warnings", "diffusion", "denoise", "denoiser", "face_restorer", "tta", "safety",
    "raw", "channels", "grant",
)  # fmt: skip
"""What is not on the wire, or under another name."""

_SETTINGS: Final = {"guidance": "CFGScale", "prompt": "positivePrompt", "colour_fix": "colorFix"}


async def handle(task: GetTaskDetails, context: Context) -> TaskDetails:
    """Give the task of this UUID, and its result, its error, or how far it is; images by URL.

    Raises:
        NotFoundError: if the account has no such task.
    """
    await context.settled(task.task_uuid)
    services = context.services
    record = await services.database.run(tasks.look, context.account, task.task_uuid.lower())
    if record is None or not context.sees(record):
        raise NotFoundError("taskNotFound", f"there is no task {task.task_uuid}", "taskUUID")
    item = await services.results.item(record, context.base_url, by_url="this is about the task alone")
    answer = {"errors": [item]} if isinstance(item, ErrorItem) else {"data": [item]}
    return TaskDetails(task_uuid=task.task_uuid, request=[_as_sent(record.request)], response=answer)


def _as_sent(request: UpscaleRequest) -> dict[str, Any]:
    """The task on the wire. What it left out may be there with its default."""
    fields: dict[str, Any] = to_builtins(request)
    for name in _OTHERWISE:
        fields.pop(name, None)
    if request.raw:
        fields["output_format"] = OutputFormat.RAW.value
    sent = {_NAMES.get(name, wire_name(name)): value for name, value in fields.items()}
    image = _image(request.source)
    sent |= {"inputImage": image} if request.parameter == "inputImage" else {"inputs": {"image": image}}
    if request.tta:
        sent["tta"] = 8
    if request.safety is not None:
        sent["safety"] = {"checkContent": True, "action": request.safety}
    if request.blend is not None:
        sent["blend"] = {"model": request.blend.model, "visibility": request.blend.visibility}
    settings = {} if request.diffusion is None else _settings(request.diffusion)
    if request.denoise is not None:
        settings["denoise"] = request.denoise
    if request.denoiser is not None:
        sent["denoise"] = to_builtins(request.denoiser)
    if request.face_restorer is not None:
        wanted: dict[str, Any] = to_builtins(request.face_restorer)
        sent["faceRestoration"] = {wire_name(name): value for name, value in wanted.items()}
    return sent | ({"settings": settings} if settings else {})


def _image(source: StoredImage | RemoteImage | UnstoredImage) -> Any:
    """The input on the wire; without pixels that are not stored."""
    match source:
        case StoredImage(uuid):
            return uuid
        case RemoteImage(url):
            return url
    return {"width": source.width, "height": source.height, "channels": source.channels}


def _settings(diffusion: Diffusion) -> dict[str, Any]:
    fields: dict[str, Any] = to_builtins(diffusion)
    return {
        _SETTINGS.get(name, wire_name(name)): value for name, value in fields.items() if value is not None
    }
