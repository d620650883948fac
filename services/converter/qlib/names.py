"""Which symbols can Qlib distinguish, and in which folder does it expect each? Pure.

Qlib reads a symbol from its name in lower case, so two that differ in nothing but case are one to it; and it reads
the instruments files with pandas, which takes some words for "no value".
Source: pyqlib 0.9.7, `FileFeatureStorage`, `code_to_fname`, `FileInstrumentStorage._read_instrument`.
"""

from collections.abc import Iterable
from functools import lru_cache

from shared.symbol import fold

_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(10))}
"""Windows cannot have a file of such a name; Qlib puts a prefix before it, on every system."""
_PREFIX = "_qlib_"

_NO_VALUES = {"NA", "NULL", "null", "NaN", "nan", "None"}
"""Words that pandas reads as NaN, those that can be a symbol: one of them in an instruments file breaks every query."""


@lru_cache(maxsize=8192)
def folder_of(symbol: str) -> str:
    """Return the name of the folder from which Qlib reads a symbol."""
    return f"{_PREFIX if symbol.upper() in _DEVICES else ''}{symbol}".lower()


class Names:
    """The symbols of a dataset: how each is spelled, and which others it shuts out. known: those that are in it."""

    def __init__(self, known: Iterable[str]) -> None:
        self._spelled: dict[str, str] = {}
        self._owners: dict[str, str] = {}
        self.admit(known)

    def admit(self, symbols: Iterable[str]) -> dict[str, str]:
        """Take symbols in, the first ones first; return those that cannot be here, each with the reason."""
        refused = {}
        for symbol in symbols:
            reason = self.why_not(symbol)
            if reason is not None:
                refused[symbol] = reason
            else:
                self._spelled[folder_of(symbol)] = symbol
                self._owners |= dict.fromkeys(_keys(symbol), symbol)
        return refused

    def why_not(self, symbol: str) -> str | None:
        """Return why a symbol cannot be in the dataset, or None where it can."""
        if symbol in _NO_VALUES:
            return f"pandas, and so Qlib, reads the name {symbol} as no name at all, and fails for every other symbol"
        owner = next((owner for key in _keys(symbol) if (owner := self._owners.get(key, symbol)) != symbol), None)
        if owner is None:
            return None
        return f"Qlib takes it for {owner}, which is there already: the names differ in nothing but case"

    def possible(self, symbols: Iterable[str]) -> list[str]:
        """Return those of some symbols that can be in the dataset."""
        return [symbol for symbol in symbols if self.why_not(symbol) is None]

    def spelled(self, folder: str) -> str:
        """Return the symbol that a folder belongs to: in upper case where it has not been taken in."""
        upper = folder.removeprefix(_PREFIX).upper()
        return self._spelled.get(folder, upper if folder_of(upper) == folder else folder)


def _keys(symbol: str) -> tuple[str, ...]:
    """Return what two symbols may not share: the folder, and for file systems that fold names the name without case."""
    return folder_of(symbol), fold(symbol)
