"""JSON of the exchange, where one odd value must not cost its neighbours. Pure.

msgspec reads an answer at once, and refuses all of it for one value that it cannot hold: a number beyond 64 bits, half
a surrogate pair, lists nested too deeply. Then, and only then, the rows are taken apart and read value by value. What
cannot be held stands in its row as `Unreadable`, which no parser takes for anything.
"""

import re
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

_SHOWN = 200
"""Characters of an unreadable value that are kept."""
_MOST_PIECEWISE = 2_000_000
"""Characters of a body that is taken apart, which takes a second for as many brackets. Real ones have 0.4 MB."""
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|["\[\]{},:]', re.DOTALL)
"""A text, or what structures the values around it. A quote alone is a text without an end."""
_BRACKETS = {"[": "]", "{": "}"}


class Unreadable(msgspec.Struct, frozen=True):
    """A value that JSON may hold and we cannot: the beginning of its text."""

    unreadable: str


class Envelope(Protocol):
    """What holds rows."""

    data: list[Any] | None


def decode_rows[E: Envelope](body: str | bytes, declared: type[E]) -> E:
    """Read an answer or a frame; what cannot be held of its rows is `Unreadable`, and everything else is as it came.

    Raises `ValueError` where the body is no JSON, or not of the declared shape.
    """
    try:
        return msgspec.json.decode(body, type=declared)
    except (ValueError, RecursionError) as error:
        if len(body) > _MOST_PIECEWISE:
            raise ValueError(str(error)) from error
        return _piecewise(body if isinstance(body, str) else body.decode("utf-8", "backslashreplace"), declared)


def _piecewise[E: Envelope](text: str, declared: type[E]) -> E:
    members = _members(text)
    rows = members.pop("data", "null")
    without = ",".join(f"{msgspec.json.encode(name).decode()}:{value}" for name, value in members.items())
    try:
        envelope = msgspec.json.decode("{" + without + "}", type=declared)
    except RecursionError as error:
        raise ValueError(str(error)) from error
    envelope.data = None if rows == "null" else [_row(row) for row in _items(rows)]
    return envelope


def _row(text: str) -> Any:
    """Read a row as a whole, else its values one by one."""
    return _value(text, instead=_values)


def _values(text: str) -> Any:
    try:
        if text.startswith("{"):
            return {name: _value(value) for name, value in _members(text).items()}
        return [_value(value) for value in _items(text)]
    except ValueError:
        return _unreadable(text)


def _unreadable(text: str) -> Unreadable:
    return Unreadable(text[:_SHOWN])


def _value(text: str, instead: Callable[[str], Any] = _unreadable) -> Any:
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return instead(text)


def _members(text: str) -> dict[str, str]:
    """Return the members of an object: name → the text of its value. Raises `ValueError`."""
    halves = map(_halves, _parts(text, "{"))
    return {msgspec.json.decode(name, type=str): value for name, value in halves}


def _halves(member: str) -> tuple[str, str]:
    name = _TOKEN.match(member)
    rest = member[name.end() :].lstrip() if name is not None else ""
    if name is None or not rest.startswith(":"):
        raise ValueError("a member of an object without a name")
    return name[0], rest[1:].strip()


def _items(text: str) -> list[str]:
    """Return the texts of the values of a list. Raises `ValueError`."""
    return _parts(text, "[")


def _parts(text: str, opening: str) -> list[str]:
    """Split a list or an object at its own commas. Raises `ValueError` where its brackets do not match."""
    text = text.strip()
    if not text.startswith(opening):
        raise ValueError(f"no {opening}")
    expected: list[str] = []
    parts, begin = [], 1
    for token in _TOKEN.finditer(text):
        sign = token[0]
        if sign in _BRACKETS:
            expected.append(_BRACKETS[sign])
        elif sign in ("]", "}"):
            if sign != expected.pop():
                raise ValueError("brackets that do not match")
            if not expected:
                break
        elif sign == "," and len(expected) == 1:
            parts.append(text[begin : token.start()].strip())
            begin = token.end()
        elif sign == '"':
            raise ValueError("a text without an end")
    if expected or token.end() != len(text):
        raise ValueError("it has another end")
    last = text[begin:-1].strip()
    return [*parts, last] if parts or last else []
