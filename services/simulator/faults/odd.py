"""Rows, lists and times that an exchange should not give and sometimes does: pure functions of a fault."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from services.simulator.engine.decimals import plain
from services.simulator.faults.fault import Asked, Delivery, Fault, Push, Reply

LISTS = ("/public/instruments", "/public/funding-rate")
"""Endpoints whose answer is a list of everything there is."""
ALL_ROWS = "*"
TRUNCATED_SHARE = 1 / 3
CONFIRM_COLUMN = 8

Rows = list[Any]
EditRows = Callable[[Rows], Rows | None]
"""Returns the rows as they shall be, None where there is nothing to change."""


# Lists of rows


def places_of(wanted: str | int | Sequence[str] | None, rows: Sequence[Any]) -> list[int]:
    """Return where the rows stand that a fault names; the first one where it names none."""
    if wanted == ALL_ROWS:
        return list(range(len(rows)))
    if wanted is None or isinstance(wanted, int):
        place = wanted or 0
        return [place % len(rows)] if -len(rows) <= place < len(rows) else []
    names = {wanted} if isinstance(wanted, str) else set(wanted)
    return [place for place, row in enumerate(rows) if _name_of(row) in names]


def _name_of(row: Any) -> Any:
    """Return what a row is called by: its instId; of a candle its open time; nothing where it is no row."""
    name = row.get("instId") if isinstance(row, dict) else row[0] if isinstance(row, list) and row else None
    return name if isinstance(name, str) else None


def odd_rows(fault: Fault, rows: Rows) -> Rows | None:
    """Replace a value, or a whole row; `inserted` leaves the right row behind the odd one."""
    is_inserted = fault.variant == "inserted"
    if is_inserted and fault.field is None and not rows:
        return [_value(fault)]
    places = [place for place in places_of(fault.row, rows) if _has(rows[place], fault.field)]
    changed = list(rows)
    for place in reversed(places):
        changed[place : place + 1] = [odd_row(fault, rows[place]), *([rows[place]] if is_inserted else [])]
    return changed if places else None


def _has(row: Any, field: str | int | None) -> bool:
    """Return whether a row can have a field: any name in an object, the columns that are there in a list."""
    if field is None or isinstance(row, dict):
        return True
    return isinstance(row, list) and str(field).isdigit() and int(field) < len(row)


def odd_row(fault: Fault, row: Any) -> Any:
    """Return a row as the fault has it; a field for which it has no value is taken out."""
    if fault.field is None:
        return _value(fault)
    value, is_missing = _value(fault), fault.value is msgspec.UNSET
    if isinstance(row, list):
        place = int(fault.field)
        return [*row[:place], *([] if is_missing else [value]), *row[place + 1 :]]
    rest = {name: kept for name, kept in row.items() if name != str(fault.field)}
    return rest if is_missing else rest | {str(fault.field): value}


def _value(fault: Fault) -> Any:
    return None if fault.value is msgspec.UNSET else msgspec.json.decode(fault.value)


def thinned(fault: Fault, rows: Rows) -> Rows | None:
    """Return a list that lacks rows, or has some twice."""
    if fault.variant == "empty":
        return []
    if fault.variant == "truncated":
        return rows[: math.floor(len(rows) * (TRUNCATED_SHARE if fault.share is None else fault.share))]
    places = places_of(fault.row, rows)
    if fault.variant == "doubled":
        return [*rows, *(rows[place] for place in places)] if places else None
    return [row for place, row in enumerate(rows) if place not in places] if places else None


# Pushes


def odd_value_push(fault: Fault, push: Push, deliveries: list[Delivery], _now_ms: int) -> list[Delivery] | None:
    """Make rows of a push odd."""
    if fault.push not in (None, push.kind):
        return None
    changed = [with_rows(delivery.payload, lambda rows: odd_rows(fault, rows)) for delivery in deliveries]
    if all(payload is None for payload in changed):
        return None
    return [
        delivery if payload is None else delivery._replace(payload=payload)
        for delivery, payload in zip(deliveries, changed, strict=True)
    ]


def two_rows(fault: Fault, push: Push, deliveries: list[Delivery], _now_ms: int) -> list[Delivery] | None:
    """Put a forming row of a minute into the frame of the row that closes it, before or after that."""
    if push.kind != "confirm":
        return None

    def doubled(rows: Rows) -> Rows | None:
        if len(rows) != 1 or not is_closed_candle(rows[0]):
            return None
        forming = first_trade(rows[0])
        return [forming, rows[0]] if fault.variant == "closed_last" else [rows[0], forming]

    changed = [with_rows(delivery.payload, doubled) or delivery.payload for delivery in deliveries]
    return [delivery._replace(payload=payload) for delivery, payload in zip(deliveries, changed, strict=True)]


def first_trade(closed: Sequence[str]) -> list[str]:
    """Return the forming row of a minute, as it was when only its first trade had been made."""
    volumes = [plain(float(volume) / 2) for volume in closed[5:8]]
    return [closed[0], *[closed[1]] * 4, *volumes, "0"]


# Answers


def odd_value_answer(fault: Fault, _asked: Asked, reply: Reply) -> Reply | None:
    """Make rows of an answer odd."""
    return edited(reply, lambda rows: odd_rows(fault, rows))


def thin_list(fault: Fault, asked: Asked, reply: Reply) -> Reply | None:
    """Leave rows out of a list of all instruments or of all funding rates, or have some twice."""
    if not asked.endpoint.endswith(LISTS) or asked.inst_id not in (None, "", "ANY"):
        return None
    return edited(reply, lambda rows: thinned(fault, rows) if rows else None)


def odd_time(fault: Fault, asked: Asked, reply: Reply) -> Reply | None:
    """Answer with no time, or a wrong one; all rows stay true."""
    if not asked.endpoint.endswith("/public/time"):
        return None
    wrong = str(asked.now_ms + int((fault.seconds or 0) * 1000))
    rows: dict[str, Rows] = {"empty": [], "blank": [{"ts": ""}], "renamed": [{"time": "1"}], "jump": [{"ts": wrong}]}
    return edited(reply, lambda _rows: rows[fault.variant or "empty"])


# Messages


def is_closed_candle(row: Any) -> bool:
    """Return whether a row is a candle that is confirmed and has figures: no other fault has made it odd."""
    return (
        isinstance(row, list)
        and len(row) > CONFIRM_COLUMN
        and row[CONFIRM_COLUMN] == "1"
        and all(_is_figure(value) for value in row[:CONFIRM_COLUMN])
    )


def _is_figure(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?", value) is not None


def with_rows(payload: bytes, edit: EditRows) -> bytes | None:
    """Change the rows of a push; None where nothing is changed, or where it is no push (a broken frame)."""
    try:
        message = msgspec.json.decode(payload)
    except msgspec.DecodeError:
        return None
    changed = edit(message["data"])
    return None if changed is None else msgspec.json.encode(message | {"data": changed})


def edited(reply: Reply, edit: EditRows) -> Reply | None:
    """Change the rows of a good answer; None where nothing is changed, or where it is packed already."""
    if reply.code != "0" or is_packed(reply):
        return None
    message = msgspec.json.decode(reply.body)
    changed = edit(message["data"])
    return None if changed is None else reply._replace(body=msgspec.json.encode(message | {"data": changed}))


def is_packed(reply: Reply) -> bool:
    """Return whether an answer has been packed: what is inside can be changed no more."""
    return any(name == "Content-Encoding" for name, _ in reply.headers)
