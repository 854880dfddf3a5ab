"""`accountManagement`: the account's balance, keys and usage."""

from typing import Final, NamedTuple

from sqlalchemy import Connection

from server.handlers.context import Context
from server.money import to_usd
from server.protocol.errors import unsupported
from server.protocol.replies import AccountManagementResult, Balance, KeyItem, Usage, iso_time
from server.protocol.requests import AccountManagement
from server.state.accounts import AccountId, Key, list_keys
from server.state.books import day_of
from server.state.ledger import Spent, Statement, spent, spent_since, statement

__all__ = ["AccountDetails", "account_details", "handle"]

_SPANS: Final = {"today": 1, "last7Days": 7, "last30Days": 30}
"""How many days of UTC each span has; today is one of them."""


class AccountDetails(NamedTuple):
    """What an account may know about itself."""

    statement: Statement
    keys: list[Key]
    usage: dict[str, Spent]


async def handle(task: AccountManagement, context: Context) -> AccountManagementResult:
    """What is known of the account that asks.

    Raises:
        ParameterError: for any operation but `getDetails`.
    """
    if task.operation != "getDetails":
        raise unsupported("operation", f"{task.operation!r} is not offered; offered is: getDetails")
    services, account = context.services, context.account
    details = await services.database.run(account_details, account, services.clock())
    name, available = details.statement
    return AccountManagementResult(
        task_uuid=task.task_uuid,
        operation=task.operation,
        organization_uuid=account,
        organization_name=name,
        balance=Balance(amount=None if available is None else to_usd(available)),
        api_keys=[
            KeyItem(
                name=key.label,
                api_key=f"{key.hint}…",
                enabled=key.is_valid(services.clock()),
                created_at=iso_time(key.created),
                last_used_at=None if key.last_used is None else iso_time(key.last_used),
            )
            for key in details.keys
        ],
        usage={
            span: Usage(credits=to_usd(charged), requests=charges)
            for span, (charged, charges) in details.usage.items()
        },
    )


def account_details(connection: Connection, account: AccountId, now: float) -> AccountDetails:
    """All that `getDetails` returns, from one moment."""
    today = day_of(now)
    usage = {span: spent_since(connection, account, today - days + 1) for span, days in _SPANS.items()}
    return AccountDetails(
        statement(connection, account),
        list_keys(connection, account),
        {"total": spent(connection, account), **usage},
    )
