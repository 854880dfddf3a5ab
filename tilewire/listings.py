"""What the server says of its models and of the account."""

from decimal import Decimal

from msgspec import Struct

from tilewire.wire import wire_name

__all__ = ["Account", "ApiKey", "Balance", "Model", "ModelPage", "Usage"]


class Model(Struct, frozen=True, kw_only=True, rename=wire_name):
    """An installed model.

    Attributes:
        air: its AIR id, such as `runware:504@1`; what a task's `model` may be, as may `name`.
        upscale_factors: the whole factors that it offers.
        fractional_factors: whether it takes any number above 1 up to the largest of them, too.
        parameters: the names of the `settings` that it takes.
        options: of the task's parameters that not all models take, such as `seamless`, those it does.
        default_steps: of models that take the setting `steps`.
        seconds_per_megapixel: how long a million output pixels took of late; None if nobody knows.
        price_per_megapixel: in USD per million output pixels.
    """

    air: str
    name: str
    version: str
    category: str
    architecture: str
    tags: list[str]
    title: str
    comment: str
    upscale_factors: list[int]
    fractional_factors: bool
    parameters: list[str]
    options: list[str] = []
    default_steps: int | None = None
    seconds_per_megapixel: float | None = None
    price_per_megapixel: Decimal
    licence: str


class ModelPage(Struct, frozen=True, rename=wire_name):
    """Some of the models.

    Attributes:
        total_results: how many there are in all.
    """

    total_results: int
    results: list[Model]


class Balance(Struct, frozen=True):
    """Money in USD.

    Attributes:
        amount: None for an account without a limit.
    """

    amount: Decimal | None
    currency: str = "USD"


class ApiKey(Struct, frozen=True, rename=wire_name):
    """An API key, without the secret. Times are ISO 8601, UTC."""

    name: str
    api_key: str
    enabled: bool
    created_at: str
    last_used_at: str | None


class Usage(Struct, frozen=True):
    """What an account did in a span of time.

    Attributes:
        credits: what it spent, in USD.
        requests: how many tasks it was charged for.
    """

    credits: Decimal
    requests: int


class Account(Struct, frozen=True, kw_only=True, rename=wire_name):
    """What the server knows of the account.

    Attributes:
        usage: by span: `total`, `today` (UTC), `last7Days`, `last30Days`.
    """

    organization_uuid: str
    organization_name: str
    balance: Balance
    api_keys: list[ApiKey]
    usage: dict[str, Usage]
