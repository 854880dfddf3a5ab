"""What keeps the server from starting."""

__all__ = ["StartError"]


class StartError(Exception):
    """The server could not start; the message says why, in one line."""
