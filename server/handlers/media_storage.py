"""`mediaStorage`: Runware's newer name for keeping an image, and for deleting one."""

from server.handlers import image_upload
from server.handlers.context import Context
from server.protocol.errors import NotFoundError, invalid
from server.protocol.replies import MediaStorageResult
from server.protocol.requests import ImageUpload, MediaStorage
from server.protocol.sources import StoredImage, read_source
from server.state.images import expire

__all__ = ["handle"]


async def handle(task: MediaStorage, context: Context) -> MediaStorageResult:
    """Keep the image as `imageUpload` does, or delete it: its UUID and URL lead nowhere from now on.

    Raises:
        NotFoundError: if the account has no image of the UUID that is to be deleted.
        ParameterError: if what is to be deleted is not named by its UUID.
        TaskError: as `image_upload.handle`.
    """
    if task.operation == "upload":
        upload = ImageUpload(task_uuid=task.task_uuid, image=task.media)
        kept = await image_upload.handle(upload, context, parameter="media")
        return MediaStorageResult(
            task_uuid=task.task_uuid,
            operation="upload",
            media_uuid=kept.image_uuid,
            media_url=kept.image_url,
        )
    named = await read_source(task.media, "media", context.raw.codec)
    if not isinstance(named, StoredImage):
        raise invalid("media", "media must be the UUID of the image to delete", "UUID")
    services = context.services
    if not await services.database.run(expire, context.account, named.uuid, services.clock()):
        raise NotFoundError("imageNotFound", f"there is no image {named.uuid}, or no more", "media")
    return MediaStorageResult(task_uuid=task.task_uuid, operation="delete", media_uuid=named.uuid)
