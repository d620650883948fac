"""How does OKX name a swap, and what is that in our words? Pure."""

from shared.exchanges.base import RowError
from shared.exchanges.okx.values import shown
from shared.symbol import Symbol, SymbolError, belongs, parse_symbol

EXCHANGE = "okx"

_SUFFIX = "-SWAP"


def symbol_of(inst_id: str) -> Symbol:
    """Return our name: instId without -SWAP, dashes to underscores (BTC-USDT-SWAP is BTC_USDT).

    Raises `RowError` for what is no swap's name, cannot be a symbol, or does not lead back to the same instId.
    """
    if not is_swap(inst_id):
        raise RowError(f"instId: {shown(inst_id)} is not the name of a swap")
    try:
        symbol = parse_symbol(inst_id.removesuffix(_SUFFIX).replace("-", "_"))
    except SymbolError as error:
        raise RowError(f"instId: {error}") from error
    if inst_id_of(symbol) != inst_id or not belongs(symbol, EXCHANGE):
        raise RowError(f"instId: {shown(inst_id)} as {symbol} would be taken for another name")
    return symbol


def inst_id_of(symbol: str) -> str:
    """Return OKX's name of a swap. A base has no underscore, so the first one is the dash (BTC_USD_UM, BTC-USD_UM)."""
    base, _, quote = symbol.partition("_")
    return f"{base}-{quote}{_SUFFIX}"


def is_swap(inst_id: object) -> bool:
    """Return whether the name is a perpetual swap's; X-Perps and dated futures end otherwise."""
    return isinstance(inst_id, str) and inst_id.endswith(_SUFFIX)
