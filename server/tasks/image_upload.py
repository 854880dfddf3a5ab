"""`imageUpload`: keeps an image for later tasks."""

from server.protocol.messages import ImageUpload, ImageUploadResult
from server.protocol.sources import parse_source
from server.results import image_url
from server.tasks.context import Context

__all__ = ["handle"]


async def handle(task: ImageUpload, context: Context) -> ImageUploadResult:
    """The UUID and URL of the stored image. The same image uploaded again keeps its UUID.

    Raises:
        TaskError: as `Inputs.obtain`.
    """
    source = parse_source(task.image, "image", context.raw.codec)
    record = await context.services.inputs.obtain(context.account, source, "image", task.ttl)
    return ImageUploadResult(
        task_uuid=task.task_uuid,
        image_uuid=record.uuid,
        image_url=image_url(context.base_url, record.name),
    )
