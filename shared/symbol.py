"""The name of an instrument in this system: one type, made at the border only. Pure.

A symbol becomes the name of a file (`BTC_USDT_20250405.parquet`), a folder of Qlib (`features/btc_usdt`), a field in
Redis and a word in text files. So it is safe in all of them: letters and digits of any script, joined by underscores,
short enough for a file name with its date and its suffixes. A symbol is unique over all exchanges: one of OKX stands
alone (`BTC_USDT`), one of another exchange names it behind a dot (`BTC_USDT.BINANCE`). Everything else is refused where
it comes in; so are characters that show nothing, with which one name would look like another.

Qlib and some file systems take upper and lower case for the same. Two symbols that differ in nothing else are one
folder there: `fold` gives what must be unique, `unique` says which of several may stay.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import NewType

Symbol = NewType("Symbol", str)
"""A text that `parse_symbol` has accepted."""

MAX_BYTES = 160
"""In UTF-8, of the symbol and of its folded form. A file name holds 255 bytes; the date, `.parquet`, and what a name
has while it is written or once it is put aside take less than the rest."""
MAX_SHOWN = 80
"""Characters of a refused text that an error repeats."""


class SymbolError(ValueError):
    """A text that cannot be a symbol; it says why."""


HOME = "okx"
"""The exchange whose symbols stand alone."""


def suffix_of(exchange: str) -> str:
    """Return what the symbols of an exchange end with: nothing for OKX, `.BINANCE` for binance or binance_usdm."""
    return "" if exchange == HOME else f".{exchange.partition('_')[0].upper()}"


def symbol_at(exchange: str, text: str) -> Symbol:
    """Return a text as a symbol of an exchange. Raises `SymbolError`."""
    return parse_symbol(text + suffix_of(exchange))


def suffix_in(symbol: str) -> str:
    """Return what a symbol says of its exchange: nothing for OKX, else the name behind the dot with the dot."""
    _, dot, name = symbol.partition(".")
    return dot + name


def belongs(symbol: str, exchange: str) -> bool:
    """Return whether a symbol is one of an exchange."""
    return suffix_in(symbol) == suffix_of(exchange)


@lru_cache(maxsize=65_536)
def parse_symbol(text: str) -> Symbol:
    """Return a text as a symbol. Raises `SymbolError`, naming the text and what is wrong with it."""
    if reason := _wrong(text):
        raise SymbolError(f"{text[:MAX_SHOWN]!r} cannot be a symbol: {reason}")
    return Symbol(text)


def _wrong(text: str) -> str | None:
    if not text:
        return "it is empty"
    name, dot, exchange = text.partition(".")
    if dot and not _EXCHANGE.fullmatch(exchange):
        return "behind a dot stands the name of an exchange, in upper case letters and digits"
    return _wrong_letters(name) or _wrong_length(text)


def _wrong_letters(text: str) -> str | None:
    if not all(_is_part(part) for part in text.split("_")):
        return "letters and digits of any script are allowed, joined by single underscores"
    if hidden := [character for character in text if _is_invisible(character)]:
        return f"it holds a character that shows nothing: U+{ord(hidden[0]):04X}"
    if unicodedata.normalize("NFC", text) != text:
        return "its characters are not in their composed form (NFC), so a file system may rename it"
    return None


def _wrong_length(text: str) -> str | None:
    if max(_bytes(text), _bytes(fold(text))) > MAX_BYTES:
        return f"it is longer than {MAX_BYTES} bytes"
    return None


_EXCHANGE = re.compile(r"[A-Z][A-Z0-9]{1,20}")


def _is_part(part: str) -> bool:
    """Return whether a part begins with a letter or digit and holds nothing but these and their marks."""
    kinds = [unicodedata.category(character) for character in part]
    begins = bool(kinds) and (kinds[0][0] == "L" or kinds[0] == "Nd")
    return begins and all(kind[0] in "LM" or kind == "Nd" for kind in kinds)


_INVISIBLE = (
    (0x00AD, 0x00AD),
    (0x034F, 0x034F),  # combining grapheme joiner
    (0x061C, 0x061C),
    (0x115F, 0x1160),  # Hangul fillers
    (0x17B4, 0x17B5),  # Khmer inherent vowels
    (0x180B, 0x180F),  # Mongolian variation selectors and vowel separator
    (0x200B, 0x200F),
    (0x202A, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),  # Hangul filler
    (0xFE00, 0xFE0F),  # variation selectors
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),  # halfwidth Hangul filler
    (0xFFF0, 0xFFF8),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),  # tags, variation selectors, and what is kept free for such
)
"""Default_Ignorable_Code_Point of the Unicode Standard 17.0 (DerivedCoreProperties.txt), first and last of each range.

Python's `unicodedata` lacks the property. Later versions of Unicode take new ones from the ranges that are listed here
as a whole.
"""


def _is_invisible(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in _INVISIBLE)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def fold(symbol: str) -> str:
    """Return what two symbols may not share: the text without case, in its composed form."""
    return unicodedata.normalize("NFC", symbol.casefold())


def unique(symbols: Iterable[Symbol]) -> dict[Symbol, Symbol]:
    """Return those that share their folded form with one before them, each with that one; `symbols` by precedence."""
    first: dict[str, Symbol] = {}
    return {symbol: kept for symbol in symbols if (kept := first.setdefault(fold(symbol), symbol)) != symbol}
