"""What the server is called, whatever a request says.

A page of somebody else's can have its own name lead to this machine (DNS rebinding): its requests then come
with that name as their Host, and it is their Origin. So names are compared with what the operator set.
"""

import ipaddress
import socket
from urllib.parse import urlsplit

from server.settings import Settings

__all__ = ["is_own_host"]


def is_own_host(host: str, settings: Settings) -> bool:
    """Whether a Host header, or the host of an origin, names this server.

    It does by an address, which no page can have as its name; as localhost; by the name of the machine; and
    by the names in the settings `public_url` and `host`.
    """
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        public = urlsplit(settings.public_url).hostname if settings.public_url else None
        return name in {settings.host.lower(), socket.gethostname().lower(), public} - {""}
    return True
