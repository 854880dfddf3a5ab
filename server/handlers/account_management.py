"""`accountManagement`: the account's balance, keys and usage."""

from typing import Final, NamedTuple

import msgspec
from sqlalchemy import Connection

from server.handlers.context import Context
from server.handlers.usage_reports import REPORTS, report
from server.money import to_usd
from server.protocol.errors import unsupported
from server.protocol.replies import (
    AccountManagementResult,
    Balance,
    KeyItem,
    TeamMember,
    Usage,
    UsageReport,
    iso_time,
)
from server.protocol.requests import AccountManagement
from server.state.accounts import AccountId, Key, created, list_keys
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
    created: float


async def handle(task: AccountManagement, context: Context) -> AccountManagementResult | UsageReport:
    """What is known of the account that asks, or what was done with it.

    Raises:
        ParameterError: for another operation, and for parameters that are wrong or of another operation.
    """
    if task.operation in REPORTS:
        return await report(task, context)
    if task.operation != "getDetails":
        offered = ", ".join(("getDetails", *REPORTS))
        raise unsupported("operation", f"{task.operation!r} is not offered; offered are: {offered}")
    _refuse_parameters(task)
    return await _details(task, context)


def _refuse_parameters(task: AccountManagement) -> None:
    for field in msgspec.structs.fields(task):
        if not field.required and getattr(task, field.name) is not None:
            name = field.encode_name
            raise unsupported(name, f"{name} is for {', '.join(REPORTS)}, not for getDetails")


async def _details(task: AccountManagement, context: Context) -> AccountManagementResult:
    services, account = context.services, context.account
    details = await services.database.run(account_details, account, services.clock())
    name, available = details.statement
    return AccountManagementResult(
        task_uuid=task.task_uuid,
        operation=task.operation,
        organization_uuid=account,
        organization_name=name,
        balance=Balance(amount=None if available is None else to_usd(available)),
        team=[TeamMember(name=name, email="", roles=["Owner"], joined_at=iso_time(details.created))],
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
        created(connection, account),
    )
