"""What a task with raw pixels may say."""

from server.protocol.errors import ParameterError, invalid, unsupported
from server.protocol.raw_image import RawImage
from server.protocol.requests import OutputFormat, OutputType, Upscale
from server.protocol.sources import ImageSource

__all__ = ["check_raw"]


def check_raw(task: Upscale, source: ImageSource, *, binary: bool) -> None:
    """See that what a task says of raw pixels makes sense.

    Args:
        task: as it was sent.
        source: its input.
        binary: whether it came in MessagePack, in which alone there are pixels.

    Raises:
        ParameterError: naming the parameter that is wrong, or contradictory.
    """
    is_raw = task.output_format is OutputFormat.RAW
    if task.store is not None and not is_raw and not isinstance(source, RawImage):
        raise unsupported("store", "files are always stored; only raw pixels need not be")
    if is_raw:
        _check_output(task, binary=binary)


def _check_output(task: Upscale, *, binary: bool) -> None:
    refused: list[ParameterError] = []
    if not binary:
        refused.append(
            unsupported(
                "outputFormat", "RAW needs MessagePack: the subprotocol tilewire.msgpack, or its media type"
            )
        )
    if task.output_type not in (OutputType.URL, [OutputType.URL]):
        refused.append(invalid("outputType", "RAW is handed over as `image`: leave outputType out"))
    if task.webhook_url is not None:
        refused.append(unsupported("webhookURL", "a webhookURL gets JSON, which has no RAW"))
    if task.upload_endpoint is not None:
        refused.append(unsupported("uploadEndpoint", "uploadEndpoint gets a file, which RAW is not"))
    if task.keep_metadata:
        refused.append(invalid("keepMetadata", "RAW has no metadata: leave keepMetadata out"))
    if task.ttl is not None and not task.store:
        refused.append(invalid("ttl", "what is not stored has no ttl: add store: true"))
    if refused:
        raise refused[0]
