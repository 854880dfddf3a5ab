"""From what the maker of a token asks for to what the token is limited to."""

from decimal import Decimal
from typing import Final

from msgspec import UNSET

from onnx_models import Catalogue, UnknownModelError
from server.money import to_nanodollars
from server.protocol.errors import invalid
from server.protocol.tokens import NewToken
from server.state.grants import Terms

__all__ = ["terms_of"]

_LARGEST_COST: Final = 10**9


def terms_of(wanted: NewToken, catalogue: Catalogue) -> Terms:
    """What a token is limited to.

    Raises:
        ParameterError: if there is no such model, or the cost is no amount.
    """
    try:
        models = tuple(dict.fromkeys(catalogue.get(name).name for name in wanted.models))
    except UnknownModelError as error:
        raise invalid("models", str(error)) from error
    return Terms(
        origins=wanted.allowed_origins,
        models=models,
        max_tasks=None if wanted.max_tasks is UNSET else wanted.max_tasks,
        max_cost=None if wanted.max_cost is UNSET else _nanodollars(wanted.max_cost),
        max_megapixels=None if wanted.max_megapixels is UNSET else wanted.max_megapixels,
    )


def _nanodollars(usd: Decimal) -> int:
    if not usd.is_finite() or not 0 <= usd <= _LARGEST_COST:
        raise invalid("maxCost", f"maxCost must be from 0 to {_LARGEST_COST} USD", "number")
    try:
        return to_nanodollars(usd)
    except ValueError as error:
        raise invalid("maxCost", f"maxCost: {error}", "number") from error
