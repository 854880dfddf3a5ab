"""A server for one command: on a free port, with data of its own, gone when the command ends."""

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from server.commands.memory import largest_result
from server.serving import EmbeddedServer
from server.settings import Settings

__all__ = ["embedded_server"]


@contextmanager
def embedded_server(settings: Settings) -> Iterator[tuple[str, str]]:
    """The address and key of a server that is there for the time of the block.

    Raises:
        StartError: if it cannot be started.
    """
    secret = secrets.token_urlsafe(16)
    largest = largest_result(settings).megapixels
    with tempfile.TemporaryDirectory(prefix="tilewire-") as directory:
        own = msgspec.structs.replace(
            settings,
            host="127.0.0.1",
            port=0,
            data=Path(directory),
            added_models=settings.effective_added_models,
            api_key=secret,
            database_url=None,
            storage_url=None,
            public_url=None,
            tls_certificate=None,
            tls_key=None,
            models=(),
            max_frame_bytes=2**30,  # the files are the caller's own
            max_image_bytes=2**30,
            max_unsent_bytes=2**40,
            max_input_megapixels=max(largest, settings.max_input_megapixels),
            max_output_megapixels=largest,
            upload_bytes_per_hour=2**60,
            drain_timeout=0.1,  # nobody waits for tasks that are left when the command is interrupted
        )
        with EmbeddedServer(own) as server:
            yield f"{server.url.replace('http', 'ws', 1)}/v1", secret
