"""A server for one command: on a free port, with data of its own, gone when the command ends."""

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

import msgspec

from server.commands.memory import largest_result
from server.errors import StartError
from server.settings import Settings

__all__ = ["Embedded", "embedded_server", "space_runs_out"]

_IMAGES_FOR: Final = 6 * 3600
"""Seconds; the folder of a long batch would else grow without end."""

_TASKS_FOR: Final = 7 * 86400
"""Seconds; who waits for a very large picture can interrupt it."""

_SPACE: Final = 8 * 2**20
"""Bytes that must be free at the start."""

_LEAST_SPACE: Final = 2**20
"""Bytes that must stay free: with fewer the server waits for more."""

_LOOK_EVERY: Final = 1.0


class Embedded(NamedTuple):
    """A server for one command.

    Attributes:
        url: of its socket.
        key: an API key.
        directory: where its data is.
    """

    url: str
    key: str
    directory: Path


@contextmanager
def embedded_server(settings: Settings) -> Iterator[Embedded]:
    """A server that is there for the time of the block.

    Raises:
        StartError: if it cannot be started, or there is no space for its data.
    """
    from server.serving import EmbeddedServer  # noqa: PLC0415 - the whole server: slow to import

    secret = secrets.token_urlsafe(16)
    largest = largest_result(settings).megapixels
    with tempfile.TemporaryDirectory(prefix="tilewire-") as directory:
        own = msgspec.structs.replace(
            settings,
            host="127.0.0.1",
            port=0,
            tcp=True,
            uds=None,
            uds_owner=None,
            uds_group=None,
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
            image_ttl=_IMAGES_FOR,
            task_timeout=_TASKS_FOR,
            drain_timeout=0.1,  # nobody waits for tasks that are left when the command is interrupted
        )
        if _free(directory) < _SPACE:
            raise StartError(str(_no_space(directory)))
        with EmbeddedServer(own) as server:
            yield Embedded(f"{server.url.replace('http', 'ws', 1)}/v1", secret, Path(directory))


async def space_runs_out(directory: Path) -> NoReturn:
    """Wait until there is no space left for the data.

    Raises:
        OSError: then.
    """
    while _free(directory) >= _LEAST_SPACE:  # noqa: ASYNC110 - a disk sends no events
        await asyncio.sleep(_LOOK_EVERY)
    raise _no_space(directory)


def _free(directory: str | Path) -> int:
    return shutil.disk_usage(directory).free


def _no_space(directory: str | Path) -> OSError:
    return OSError(f"no space left in {Path(directory).parent}; TMPDIR can name another folder")
