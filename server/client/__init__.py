"""The client's former place: `from tilewire import Tilewire` is the new one."""

import warnings

from tilewire import *  # noqa: F403 - all that it had, and has
from tilewire import __all__ as __all__

warnings.warn(
    "server.client has moved: use `from tilewire import Tilewire`", DeprecationWarning, stacklevel=2
)
