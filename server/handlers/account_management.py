"""`accountManagement`: the account's balance, keys, webhook secret and usage."""

from server.handlers.context import Context
from server.money import to_usd
from server.protocol.errors import unsupported
from server.protocol.replies import AccountManagementResult, Balance, KeyItem, Usage, iso_time
from server.protocol.requests import AccountManagement
from server.state.accounts import list_keys
from server.state.ledger import spent, statement
from server.state.webhooks import signing_secrets

__all__ = ["handle"]

_DAY = 86400


async def handle(task: AccountManagement, context: Context) -> AccountManagementResult:
    """What is known of the account that asks.

    Raises:
        ParameterError: for any operation but `getDetails`.
    """
    if task.operation != "getDetails":
        raise unsupported("operation", f"{task.operation!r} is not offered; offered is: getDetails")
    services, account = context.services, context.account
    name, available = await services.database.run(statement, account)
    keys = await services.database.run(list_keys, account)
    now = services.clock()
    secret = (await services.database.run(signing_secrets, account, now))[0]
    since = {
        "total": 0.0,
        "today": now - now % _DAY,
        "last7Days": now - 7 * _DAY,
        "last30Days": now - 30 * _DAY,
    }
    usage = {}
    for span, start in since.items():
        charged, requests = await services.database.run(spent, account, start)
        usage[span] = Usage(credits=to_usd(charged), requests=requests)
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
                enabled=not key.revoked,
                created_at=iso_time(key.created),
                last_used_at=None if key.last_used is None else iso_time(key.last_used),
            )
            for key in keys
        ],
        webhook_secret=secret,
        usage=usage,
    )
