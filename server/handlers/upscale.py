"""`upscale` and its classic name `imageUpscale`: the work that the server is for."""

import asyncio

from msgspec import Struct, structs

from engines import ModelError, Upscaler
from onnx_models import Model
from server.handlers.context import Context
from server.protocol.errors import UnavailableError, unsupported
from server.protocol.replies import Acknowledgement
from server.protocol.requests import Upscale
from server.protocol.sources import InlineImage, StoredImage
from server.state.records import Status, TaskRecord
from server.state.requests import UpscaleRequest
from server.state.tasks import LostTaskError
from server.upscale.auxiliaries import denoiser_of
from server.upscale.request import check, choose_models, cut_warnings, diffusion_of, input_source, request_for
from server.upscale.running import Running
from server.upscale.safety import safety_of

__all__ = ["handle"]


async def handle(task: Upscale, context: Context) -> Struct | None:
    """Take the task on. Over a socket the runner answers when it is done; over HTTP this waits for it.

    Raises:
        TaskError: if the task is refused.
    """
    services = context.services
    models = choose_models(services.catalogue, task)
    parameter, source = await input_source(task, context.raw.codec)
    check(task, models, services.settings.reachable)
    denoiser = denoiser_of(task, services.catalogue)
    safety = safety_of(task, services.catalogue)
    if task.include_tiles and context.session is None:
        raise unsupported(
            "includeTiles", "tiles come as messages of their own: send the task over a WebSocket"
        )
    source = await services.inputs.own(context.account, source, context.base_url, parameter)
    if isinstance(source, InlineImage):
        services.edge.take_upload(context.account, len(source.data))
        # Stored before the task is recorded, so that a recorded task can always be run again.
        source = StoredImage((await services.inputs.obtain(context.account, source, parameter)).uuid)
    warnings = (*context.raw.warnings(), *await _cut_prompts(task, models.first, services.upscaler))
    request = request_for(
        task,
        models=models,
        source=source,
        parameter=parameter,
        warnings=warnings,
        denoiser=denoiser,
        safety=safety,
        service=context.service,
    )
    session = context.session
    taken = await services.runner.submit(
        context.account,
        request,
        session=session.uuid if session else None,
        base_url=context.base_url,
        acknowledge=task.delivery_method == "async" and session is not None,
    )
    if isinstance(taken, TaskRecord) and taken.status is Status.ACCEPTED:  # another server is at it
        if session is not None:
            return None if task.delivery_method != "async" else _acknowledgement(request)
        taken = await services.runner.outcome_elsewhere(context.account, taken.task_uuid)
    if isinstance(taken, TaskRecord):
        # As it is spelt here: the client looks for what it sent.
        return structs.replace(await context.results.item(taken), task_uuid=task.task_uuid)
    if session is not None:
        return None
    if task.delivery_method != "async":
        return await _wait(taken, None, context)
    patience = context.acknowledge_after
    return await _wait(taken, services.settings.acknowledge_after if patience is None else patience, context)


async def _cut_prompts(task: Upscale, model: Model, upscaler: Upscaler) -> tuple[str, ...]:
    """What the reply says of prompts that the model cuts."""
    diffusion = diffusion_of(task, model)
    if diffusion is None or not (diffusion.prompt or diffusion.negative_prompt):
        return ()  # so it is with models that take no prompts
    try:
        return cut_warnings(await asyncio.to_thread(upscaler.cuts, model, diffusion))
    except ModelError:  # the tokenizer cannot be read; the task will find out, and fail
        return ()


async def _wait(running: Running, patience: float | None, context: Context) -> Struct:
    try:
        async with asyncio.timeout(patience):
            record = await asyncio.shield(running.outcome)
    except LostTaskError:
        record = await context.services.runner.outcome_elsewhere(running.account, running.key)
    except TimeoutError:
        return _acknowledgement(running.request)
    except asyncio.CancelledError:
        if running.outcome.cancelled():
            raise UnavailableError(
                "the server is stopping; the task will be finished after its next start"
            ) from None
        raise
    return await context.results.item(record)


def _acknowledgement(request: UpscaleRequest) -> Acknowledgement:
    return Acknowledgement(task_type=request.task_type, task_uuid=request.task_uuid)
