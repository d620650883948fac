"""How OKX spells a value: text, time, number. And how its rows are read against a declared type. Pure.

A row that does not fit leaves as a `RowError`, and as nothing else: what reads lists (`listing_of`, `predictions_of`,
...) leaves it out, names it, and takes its neighbours.

Sources, here and in the files beside: OKX v5 documentation (public data, market data, WebSocket candle and funding
channels) and recorded messages.
"""

import re
import reprlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import msgspec

from shared.exchanges.base import Page, Refused, RowError
from shared.exchanges.okx.decoding import Unreadable
from shared.grid import FIRST_DAY, MINUTE, day_start, from_ms

Text = str | int | float | None
"""What OKX spells as text; a number is taken for its text, null for none."""

_FIRST_TIME, LAST_TIME = day_start(FIRST_DAY), datetime(2100, 1, 1, tzinfo=UTC)
"""No time of a crypto exchange lies outside; a number that does is no time in milliseconds."""

#: The exchange's clock is known to about its round trip; a closed minute opened a minute ago, so this is generous.
CLOCK_TOLERANCE = 2 * MINUTE

_DIGITS = re.compile(r"[0-9]{1,16}")

_DECIMAL = re.compile(r"[+-]?[0-9]{1,40}(\.[0-9]{0,60})?([eE][+-]?[0-9]{1,3})?")


def read_each[T](rows: Iterable[object], read: Callable[[object], T]) -> Page[T]:
    """Read every row; return what could be read, and the rows that could not."""
    found: list[T] = []
    refused: list[Refused] = []
    for row in rows:
        try:
            found.append(read(row))
        except RowError as error:
            refused.append(Refused(row, str(error)))
    return Page(found, refused)


def read_row[S: msgspec.Struct](row: object, declared: type[S]) -> S:
    """Read a row of names against its declaration."""
    if not isinstance(row, dict):
        raise RowError(f"{shown(row)} is no row of names")
    for name, value in row.items():
        if isinstance(value, Unreadable):
            raise RowError(f"{name}: a value that cannot be held in {shown(row)}")
    try:
        return msgspec.convert(row, declared)
    except msgspec.ValidationError as error:
        raise RowError(f"{error} in {shown(row)}") from error


def text_of(value: object) -> str:
    """Return a value as text; nothing for null, and for a number of so many digits that it is none."""
    try:
        return "" if value is None else str(value)
    except ValueError:  # Python spells no integer of more than 4,300 digits
        return ""


def time_of(value: object, name: str) -> datetime:
    """Read a time in Unix milliseconds."""
    text = text_of(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not _DIGITS.fullmatch(text):
        raise RowError(f"{name}: no time: {shown(value)}")
    try:
        instant = from_ms(int(text))
    except OverflowError as error:
        raise RowError(f"{name}: no time: {text}") from error
    if not _FIRST_TIME <= instant < LAST_TIME:
        raise RowError(f"{name}: {text} would be in {instant.year}, so it is no time in milliseconds")
    return instant


def time_or_none(value: Text, name: str) -> datetime | None:
    """Read a time in Unix milliseconds; None where the exchange says that there is none. Raises `RowError`."""
    return None if value in (None, "", "0", 0) else time_of(value, name)


def time_if_any(value: object) -> datetime | None:
    """Read a time in Unix milliseconds; None for what is none."""
    try:
        return time_of(value, "")
    except RowError:
        return None


def known_time_of(value: Text, exchange_now: datetime) -> datetime:
    """Read when the exchange said something. A row from the future would count as the newest for ever."""
    known = time_of(value, "ts")
    if known > exchange_now + CLOCK_TOLERANCE:
        raise RowError(f"ts: {known.isoformat()} is from the future")
    return known


def decimal_of(value: object) -> float | None:
    """Read a decimal number; None for what is none, infinity and NaN included."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return float(text) if _DECIMAL.fullmatch(text := text_of(value)) else None


def number_of(value: object, row: object) -> float:
    """Read a decimal number of a row. Raises `RowError`."""
    if (number := decimal_of(value)) is None:
        raise RowError(f"no number where one is needed: {shown(row)}")
    return number


_SHOWN = 500
"""Characters of a row that an error repeats."""


class _Brief(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        try:
            return super().repr_int(x, level)
        except ValueError:  # Python spells no integer of more than 4,300 digits
            return f"<an integer of {x.bit_length():,} bits>"


_BRIEF = _Brief(maxlevel=4, maxdict=40, maxlist=20, maxtuple=20, maxset=20, maxstring=200, maxlong=60, maxother=200)


def shown(value: object) -> str:
    """Repeat a value in an error as far as it helps: neither a long nor a deeply nested one costs more than a short."""
    return _BRIEF.repr(value)[:_SHOWN]
