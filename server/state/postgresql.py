"""Connections to PostgreSQL that no lost packet and no lock makes wait for ever.

1. This side gives a statement up after a while, though the network reports no fault: `PATIENCE`; sooner when
   the server stops.
2. The other side ends a statement that runs too long, and a transaction whose client is silent: its locks
   would stop others.
3. Both sides notice soon that the other's machine is gone: with a server's connection goes its lock.
"""

from collections.abc import Generator
from typing import Any, Final, TypeVar

import psycopg
from sqlalchemy import Engine, event

from server.state.patience import Patience

__all__ = ["PATIENCE", "bound_waiting"]

T = TypeVar("T")

PATIENCE: Final = 25.0
"""Seconds that a statement may take in all; more than the server gives it."""

_CONNECT: Final[dict[str, int]] = {
    "connect_timeout": 4,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}

# www.postgresql.org/docs/current/runtime-config-client.html and -connection.html. Set once connected, and not
# as options of the connection, which poolers refuse.
_SET: Final = """
    SET statement_timeout = '20s';
    SET idle_in_transaction_session_timeout = '20s';
    SET tcp_keepalives_idle = 10;
    SET tcp_keepalives_interval = 5;
    SET tcp_keepalives_count = 3;
    SET tcp_user_timeout = '25s'
"""


def bound_waiting(engine: Engine, patience: Patience) -> None:
    """Have all connections of an engine made so that waiting for them ends."""

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: Any, _record: Any, arguments: list[Any], options: dict[str, Any]) -> Any:
        connection = _Connection.connect(*arguments, **{**_CONNECT, **options, "autocommit": True})
        connection.patience = patience
        connection.execute(_SET)
        connection.autocommit = False
        return connection


class _Connection(psycopg.Connection[Any]):
    """Gives up what takes longer than its patience, and is closed then."""

    patience = Patience(PATIENCE)

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **kwargs: Any) -> T:
        return super().wait(self._bounded(gen), *args, **kwargs)

    def _bounded(self, gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
        """The generator, which psycopg resumes ten times a second even when nothing comes, up to a time."""
        deadline = self.patience.deadline()
        try:
            state = next(gen)
            while True:
                ready = yield state
                if not ready and self.patience.is_over(deadline):
                    self.close()
                    raise psycopg.OperationalError("no answer in time")
                state = gen.send(ready)
        except StopIteration as end:
            result: T = end.value
            return result
