"""Numbers as exact decimal text: what an exchange publishes reads back as exactly what the market has."""

from decimal import Decimal


def plain(number: float) -> str:
    """Spell a float as the shortest plain decimal that parses back to exactly it; never an exponent."""
    text = repr(number)
    if "e" in text:
        text = format(Decimal(text), "f")
    text = text.removesuffix(".0")
    return "0" if text == "-0" else text


def shifted(number: float, exponent: int) -> str:
    """Spell number / 10**exponent, exactly."""
    text = format(Decimal(repr(number)).scaleb(-exponent), "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text).removeprefix("-")


def power_of_ten(exponent: int) -> str:
    """Spell 10**exponent."""
    return format(Decimal(1).scaleb(exponent), "f")
