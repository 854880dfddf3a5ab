"""How many bytes of images an account may have in the store."""

import shutil
from typing import Final

from server.settings import Settings

__all__ = ["stored_bytes_limit"]

_PART: Final = 4
"""One account has this part of the disk at most, unless the settings say otherwise."""
_IN_A_BUCKET: Final = 2**40


def stored_bytes_limit(settings: Settings) -> int:
    """Bytes of images that one account may keep; of local ones a part of the disk. The directory exists."""
    if settings.max_stored_bytes is not None:
        return settings.max_stored_bytes
    if settings.storage_url is not None and not settings.storage_url.startswith("file:"):
        return _IN_A_BUCKET
    return shutil.disk_usage(settings.data).total // _PART
