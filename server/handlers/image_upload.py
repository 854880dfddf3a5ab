"""`imageUpload`: keeps an image for later tasks."""

from server.handlers.context import Context
from server.protocol.replies import ImageUploadResult
from server.protocol.requests import ImageUpload
from server.protocol.sources import read_source

__all__ = ["handle"]


async def handle(task: ImageUpload, context: Context, *, parameter: str = "image") -> ImageUploadResult:
    """The UUID and URL of the stored image. The same image uploaded again keeps its UUID.

    Args:
        task: what came.
        context: how it came.
        parameter: the name of its image on the wire.

    Raises:
        QuotaError: if the account has sent too many images of late, or keeps too many.
        TaskError: as `Inputs.obtain`.
    """
    source = await read_source(task.image, parameter, context.raw.codec)
    context.services.check_ttl(task.ttl)
    source = await context.services.inputs.own(context.login, source, context.base_url, parameter)
    record = await context.services.inputs.obtain(context.account, source, parameter, task.ttl, context.scope)
    return ImageUploadResult(
        task_uuid=task.task_uuid,
        image_uuid=record.uuid,
        image_url=await context.services.images.url(record.name, context.base_url),
    )
