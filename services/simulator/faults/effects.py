"""What each kind of fault does to a push, a request or a subscription: pure functions; None means "not my concern"."""

import math
from collections.abc import Callable, Sequence
from typing import Any
from zlib import crc32

import msgspec

from services.simulator.engine.decimals import plain
from services.simulator.engine.market import HOUR_MS, MINUTE_MS
from services.simulator.faults.fault import Asked, Delivery, Fault, Outcome, Push, Reply
from services.simulator.faults.odd import edited, is_closed_candle, with_rows

SWAPPED_MS = MINUTE_MS + 1_000
"""A confirm that leaves this much later comes after the one of the following minute."""
OFF_GRID_MS = 17_000
EMPTIED_FIELDS = (
    "impactValue",
    "interestRate",
    "maxFundingRate",
    "minFundingRate",
    "nextFundingTime",
    "premium",
    "prevFundingTime",
    "settFundingRate",
)
"""What `empty_fields` takes out of a funding row; the rate and its time stay."""

Deliveries = list[Delivery]
PushEffect = Callable[[Fault, Push, Deliveries, int], Deliveries | None]
"""Of the fault, the push, what leaves so far, and simulated time: what leaves now."""
RequestEffect = Callable[[Fault, Asked, Reply], Reply | None]
SubscribeEffect = Callable[[Fault], Outcome]

# Pushes


def silence(_fault: Fault, _push: Push, _deliveries: Deliveries, _now_ms: int) -> Deliveries:
    """Send nothing."""
    return []


def lost_confirm(_fault: Fault, push: Push, _deliveries: Deliveries, _now_ms: int) -> Deliveries | None:
    """Lose the row that closes a minute."""
    return [] if push.kind == "confirm" else None


def late_confirm(fault: Fault, push: Push, deliveries: Deliveries, _now_ms: int) -> Deliveries | None:
    """Close a minute late."""
    return _later(deliveries, _delay_ms(fault)) if push.kind == "confirm" else None


def duplicate_confirm(_fault: Fault, push: Push, deliveries: Deliveries, _now_ms: int) -> Deliveries | None:
    """Close a minute twice."""
    return deliveries * 2 if push.kind == "confirm" else None


def out_of_order(fault: Fault, push: Push, deliveries: Deliveries, _now_ms: int) -> Deliveries | None:
    """Close a minute after forming rows of the next, or (swapped, of two minutes the even one) after its close."""
    if push.kind != "confirm":
        return None
    if fault.variant == "forming":
        return _later(deliveries, _delay_ms(fault))
    open_ms = int(_rows(push.payload)[0][0])
    return _later(deliveries, SWAPPED_MS) if open_ms // MINUTE_MS % 2 == 0 else None


def old_row(fault: Fault, push: Push, deliveries: Deliveries, _now_ms: int) -> Deliveries | None:
    """Push the row once more when its minute is long over."""
    if push.kind != fault.variant:
        return None
    return [*deliveries, Delivery(_delay_ms(fault), push.payload)]


def garbage(fault: Fault, push: Push, deliveries: Deliveries, _now_ms: int) -> Deliveries | None:
    """Put a broken frame in front of the real one, which is not lost itself."""
    if fault.variant == "text":
        return [Delivery(0, b"upstream connect error or disconnect/reset before headers"), *deliveries]
    if fault.variant == "truncated":
        return [Delivery(0, push.payload[: len(push.payload) // 2]), *deliveries]
    if push.kind != "funding":
        return None
    return [Delivery(0, _with_row(push.payload, lambda row: row | {"fundingRate": ""})), *deliveries]


def impossible_push(fault: Fault, push: Push, deliveries: Deliveries, now_ms: int) -> Deliveries | None:
    """Put a candle that cannot be in front of the right one."""
    if push.kind != "confirm" and (push.kind, fault.variant) != ("forming", "future"):
        return None
    wrong = _with_row(push.payload, lambda row: impossible_row(row, fault.variant, now_ms))
    return [Delivery(0, wrong), *deliveries]


def unknown_fields_push(_fault: Fault, _push: Push, deliveries: Deliveries, _now_ms: int) -> Deliveries:
    """Add a key to the message and to its objects, a column to its rows."""
    return [delivery._replace(payload=_with_row(delivery.payload, with_more)) for delivery in deliveries]


def empty_fields_push(_fault: Fault, push: Push, deliveries: Deliveries, _now_ms: int) -> Deliveries | None:
    """Empty what a funding row could do without."""
    if push.kind != "funding":
        return None
    return [delivery._replace(payload=_with_row(delivery.payload, emptied)) for delivery in deliveries]


# Requests


def http_error(fault: Fault, _asked: Asked, _reply: Reply) -> Reply:
    """Fail with an HTTP status, in JSON or as a proxy's page."""
    status = fault.status or 503
    if fault.html:
        page = f"<html><head><title>{status}</title></head><body>cloudflare</body></html>"
        return Reply(status, page.encode(), "text/html", "html")
    code = {503: "50001", 500: "50026", 400: "50004", 429: "50013"}.get(status, "50026")
    return Reply(status, envelope(code, "Service temporarily unavailable."), "application/json", code)


def rate_limit(_fault: Fault, asked: Asked, _reply: Reply) -> Reply:
    """Answer 50011 under HTTP 429 and, every other time, under HTTP 200: the exchange does both."""
    return rate_limit_reply(asked.sequence)


def time_error(fault: Fault, asked: Asked, reply: Reply) -> Reply | None:
    """Refuse to give the time."""
    return http_error(fault, asked, reply) if asked.endpoint.endswith("/public/time") else None


def slow(_fault: Fault, asked: Asked, reply: Reply) -> Reply:
    """Answer late."""
    return reply._replace(after=reply.after + asked.seconds)


def timeout(_fault: Fault, _asked: Asked, reply: Reply) -> Reply:
    """Never answer."""
    return reply._replace(after=math.inf)


def empty(fault: Fault, asked: Asked, reply: Reply) -> Reply | None:
    """Leave out rows of a candle page, or all of them."""
    if not asked.endpoint.endswith("candles"):
        return None
    return _edited(reply, lambda rows: [] if fault.variant == "page" else _holed(rows))


def unknown(_fault: Fault, asked: Asked, reply: Reply) -> Reply | None:
    """Deny an instrument that is there."""
    if asked.inst_id in (None, "", "ANY") or reply.code != "0":
        return None
    message = "Instrument ID, Instrument ID code, or Spread ID doesn't exist."
    return Reply(200, envelope("51001", message), "application/json", "51001", reply.after)


def impossible_answer(fault: Fault, asked: Asked, reply: Reply) -> Reply | None:
    """Put a candle that cannot be in front of a right one of the page."""
    if not asked.endpoint.endswith("candles"):
        return None

    def edit(rows: list[Any]) -> list[Any] | None:
        place = next((index for index, row in enumerate(rows) if is_closed_candle(row)), None)
        if place is None:
            return None
        return [*rows[:place], impossible_row(rows[place], fault.variant, asked.now_ms), *rows[place:]]

    return _edited(reply, edit)


def unknown_fields_answer(_fault: Fault, _asked: Asked, reply: Reply) -> Reply | None:
    """Add a key to every object, a column to every row."""
    return _edited(reply, lambda rows: [with_more(row) for row in rows])


def empty_fields_answer(_fault: Fault, asked: Asked, reply: Reply) -> Reply | None:
    """Empty what funding rows could do without."""
    if not asked.endpoint.endswith("/public/funding-rate"):
        return None
    return _edited(reply, lambda rows: [emptied(row) for row in rows])


# Subscriptions


def reject(_fault: Fault) -> Outcome:
    """Deny a channel that is there."""
    return Outcome("error", "none")


def lost_ack(fault: Fault) -> Outcome:
    """Say nothing, and send data all the same or (silent) not."""
    return Outcome("nothing", "flows" if fault.variant == "data" else "none")


def deaf(_fault: Fault) -> Outcome:
    """Acknowledge, and never send anything."""
    return Outcome("ack", "withheld")


# Rows


def impossible_row(row: list[str], variant: str | None, now_ms: int) -> list[str]:
    """Return a candle row as it cannot be."""
    wrong = list(row)
    if variant == "high_low":
        wrong[2] = plain(float(row[3]) / 2)
    elif variant == "negative":
        wrong[5:8] = ["-1", "-1", "-1"]
    elif variant == "off_grid":
        wrong[0] = str(int(row[0]) + OFF_GRID_MS)
    else:
        wrong[0] = str(now_ms // MINUTE_MS * MINUTE_MS + HOUR_MS)
    return wrong


def with_more(row: Any) -> Any:
    """Return a row with a column, an object with keys that nobody has documented."""
    if isinstance(row, dict):
        return row | {"newField": "1", "newList": [{"a": None}]}
    return [*row, "1"] if isinstance(row, list) else row


def emptied(row: Any) -> Any:
    """Return a funding row without what it could do without; what is no row, since it was made odd, stays."""
    if not isinstance(row, dict):
        return row
    return row | {name: "" for name in EMPTIED_FIELDS if name in row}


def envelope(code: str, message: str, data: Sequence[Any] = ()) -> bytes:
    """Spell an answer of the exchange."""
    return msgspec.json.encode({"code": code, "data": list(data), "msg": message})


def rate_limit_reply(sequence: int) -> Reply:
    """Return the exchange's answer to too many requests, the HTTP status by turns."""
    if sequence % 2:
        return Reply(
            200, envelope("50011", "Rate limit reached. Please refer to API document."), "application/json", "50011"
        )
    return Reply(429, envelope("50011", "Too Many Requests"), "application/json", "50011")


def _later(deliveries: Deliveries, delay_ms: int) -> Deliveries:
    return [Delivery(delay + delay_ms, payload) for delay, payload in deliveries]


def _delay_ms(fault: Fault) -> int:
    return int((fault.delay or 0) * 1000)


def _rows(payload: bytes) -> list[Any]:
    rows: list[Any] = msgspec.json.decode(payload)["data"]
    return rows


def _with_row(payload: bytes, edit: Callable[[Any], Any]) -> bytes:
    """Change every row of a push; what is no JSON (a broken frame in front of it) stays."""
    return with_rows(payload, lambda rows: [edit(row) for row in rows]) or payload


def _edited(reply: Reply, edit: Callable[[list[Any]], list[Any] | None]) -> Reply | None:
    """Change the rows of a good answer; None where there are none to change."""
    return edited(reply, lambda rows: edit(rows) if rows else None)


def _holed(rows: list[Any]) -> list[Any]:
    """Lose about a third of the rows, at least one, always the same ones."""
    kept = [row for row in rows if crc32(str(row).encode()) % 3]
    return kept if len(kept) < len(rows) else rows[1:]
