"""What is wrong with a database, in words for the operator."""

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from onnx_models import one_line

__all__ = ["database_problem"]

_SQLITE = {
    "file is not a database": "it is no SQLite database",
    "malformed": "it is damaged; a back-up has to take its place",
    "readonly": "it cannot be written",
    "read-only": "it cannot be written",
    "full": "no space left",
}


def database_problem(error: Exception, url: str) -> str:
    """One line that names the database, without its password, and what is wrong with it.

    Args:
        error: of SQLAlchemy, or of a driver that is not installed.
        url: the effective `database_url`.
    """
    if isinstance(error, ArgumentError) and not isinstance(error, NoSuchModuleError):
        return f"database_url: {one_line(error)}"
    address = make_url(url)
    backend = address.get_backend_name() if not isinstance(error, NoSuchModuleError) else ""
    if backend not in ("sqlite", "postgresql"):
        return f"database_url: {address.drivername} is not offered; it must be sqlite or postgresql"
    if isinstance(error, ImportError):
        if (error.name or "").partition(".")[0] != "psycopg":
            return one_line(error)
        return "database_url: PostgreSQL needs the extra: pip install 'tilewire[postgresql]'"
    place = address.database if backend == "sqlite" else address.render_as_string()
    reason = one_line(error.orig) if isinstance(error, DBAPIError) and error.orig else one_line(error)
    if backend == "sqlite":
        reason = next((said for word, said in _SQLITE.items() if word in reason), reason)
    return f"the database {place}: {reason}"
