"""Money: whole nanodollars inside, USD outside."""

from decimal import Decimal

__all__ = ["to_nanodollars", "to_usd"]


_NANO = Decimal(10**9)


def to_usd(amount: int) -> Decimal:
    """Nanodollars as USD, exactly, without trailing zeros."""
    usd = amount / _NANO
    return usd.quantize(Decimal(1)) if amount % 10**9 == 0 else usd.normalize()


def to_nanodollars(usd: Decimal) -> int:
    """USD as nanodollars.

    Raises:
        ValueError: if there are fractions of a nanodollar, or it is not a finite number.
    """
    if not usd.is_finite():
        raise ValueError(f"{usd} is not an amount")
    amount = usd * _NANO
    if amount != int(amount):
        raise ValueError(f"{usd} USD is not a whole number of nanodollars")
    return int(amount)
