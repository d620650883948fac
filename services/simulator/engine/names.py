"""One rule from the ways people spell a perpetual swap to OKX's instId."""

import re

QUOTES = ("USDT", "USDC", "FDUSD", "BUSD", "USD")
"""Quote currencies looked for at the end of a run-together name; USD last, since others end in it."""

KIND_MARKS = {"SWAP", "PERP", "PERPETUAL", "UM", "CM"}


class UnreadableNameError(ValueError):
    """A symbol from which no base coin can be read."""


def inst_id_of(symbol: str) -> str:
    """Return the instId of a recorded symbol.

    `ADA`, `ADAUSDT`, `ada_usdt`, `ADA-USDT`, `ADA/USDT`, `ADA/USDT:USDT`, `ADAUSDT-PERP`, `BINANCE:ADAUSDT` and
    `ADA-USDT-SWAP` are all `ADA-USDT-SWAP`; a name without a quote currency is quoted in USDT; the base coin is
    kept as recorded (`1000PEPEUSDT` is `1000PEPE-USDT-SWAP`, prices are per thousand); `BTC-USD_UM-SWAP` stays.
    """
    parts = [part for part in re.split(r"[-_/\s.]+", _without_venue(symbol.strip().upper())) if part]
    usd_margined = "USD_UM" in symbol.upper()
    while len(parts) > 1 and parts[-1] in KIND_MARKS:
        parts.pop()
    if len(parts) == 1:
        parts = _split_quote(parts[0])
    if len(parts) != 2 or not all(re.fullmatch(r"[A-Z0-9]+", part) for part in parts):  # noqa: PLR2004 base and quote
        raise UnreadableNameError(f"cannot read an instrument from the symbol {symbol!r}")
    base, quote = parts
    return f"{base}-{quote}_UM-SWAP" if usd_margined and quote == "USD" else f"{base}-{quote}-SWAP"


def _without_venue(symbol: str) -> str:
    """Drop a settlement currency (`BTC/USDT:USDT`) or a venue in front (`BINANCE:BTCUSDT`)."""
    left, colon, right = symbol.partition(":")
    if not colon or "/" in left or right in QUOTES:
        return left
    return right


def _split_quote(name: str) -> list[str]:
    name = name if name == "PERP" else name.removesuffix("PERP")
    for quote in QUOTES:
        base = name.removesuffix(quote)
        # One letter before USD is more likely a coin (TUSD) than an inverse contract.
        if base and base != name and (quote != "USD" or len(base) > 1):
            return [base, quote]
    return [name, "USDT"] if name else []
