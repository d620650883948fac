"""Answers and frames that are too much, or lead elsewhere: pure functions of a fault."""

import zlib
from collections.abc import Mapping
from functools import partial
from typing import Any

from services.simulator.faults.fault import Asked, Delivery, Fault, Push, Reply
from services.simulator.faults.odd import Rows, edited, is_packed, with_rows

HUGE_BYTES = 20_000_000
"""More than any real answer has by far: all instruments are 0.4 MB."""
FLOOD_BYTES = 100_000
FLOOD_ROWS = 50
ELSEWHERE = "https://elsewhere.invalid"
FOUND = 302

_CHUNK = b"x" * 1_000_000
_SPOILED = ("fundingRate", "realizedRate", "listTime", "begin", "ts")
"""Fields that a flood fills with its long text: the first one that a row has."""


def padded(payload: bytes, size: int) -> bytes:
    """Return a JSON object with a field more, so that it has so many bytes; one that has as many stays."""
    return b"".join(_pieces(payload, size))


def packed(payload: bytes, size: int) -> bytes:
    """Return `padded`, as gzip, without ever holding what it unpacks to."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return b"".join([*(packer.compress(piece) for piece in _pieces(payload, size)), packer.flush()])


def _pieces(payload: bytes, size: int) -> list[bytes]:
    head, tail = payload[:-1] + b',"padding":"', b'"}'
    whole, rest = divmod(max(0, size - len(head) - len(tail)), len(_CHUNK))
    return [head, *[_CHUNK] * whole, _CHUNK[:rest], tail]


def huge_frame(fault: Fault, push: Push, deliveries: list[Delivery], _now_ms: int) -> list[Delivery]:
    """Send a push once more in front of itself, in a frame of so many bytes."""
    return [Delivery(0, padded(push.payload, fault.size or HUGE_BYTES)), *deliveries]


def huge_answer(fault: Fault, _asked: Asked, reply: Reply) -> Reply | None:
    """Answer with so many bytes, as they are or packed into few."""
    if is_packed(reply) or reply.content_type != "application/json":
        return None
    size = fault.size or HUGE_BYTES
    if fault.variant == "packed":
        return reply._replace(body=packed(reply.body, size), headers=(*reply.headers, ("Content-Encoding", "gzip")))
    return reply._replace(body=padded(reply.body, size))


def flood_push(fault: Fault, push: Push, deliveries: list[Delivery], _now_ms: int) -> list[Delivery] | None:
    """Send bad rows in front of a push, a frame each."""
    if fault.push not in (None, push.kind):
        return None
    frames = [with_rows(push.payload, partial(_first_spoiled, fault, number)) for number in range(FLOOD_ROWS)]
    bad = [Delivery(0, frame) for frame in frames if frame is not None]
    return [*bad, *deliveries] if bad else None


def _first_spoiled(fault: Fault, number: int, rows: Rows) -> Rows | None:
    return [spoiled(rows[0], fault, number)] if rows else None


def flood_answer(fault: Fault, _asked: Asked, reply: Reply) -> Reply | None:
    """Answer with bad rows in front of the right ones."""

    def edit(rows: Rows) -> Rows | None:
        return [*(spoiled(rows[0], fault, number) for number in range(FLOOD_ROWS)), *rows] if rows else None

    return edited(reply, edit)


def spoiled(row: Any, fault: Fault, number: int) -> Any:
    """Return a row in which one value is a text of so many bytes that means nothing; each number is another text."""
    size = fault.size or FLOOD_BYTES
    text = f"x{number}".ljust(size, "x")[:size]
    if isinstance(row, list) and row:
        return [*row[:4], text, *row[5:]]
    if isinstance(row, dict):
        return row | {next((name for name in _SPOILED if name in row), _SPOILED[-1]): text}
    return text


def redirect(fault: Fault, asked: Asked, reply: Reply) -> Reply:
    """Send the client to another host."""
    location = (fault.target or ELSEWHERE) + asked.endpoint
    status = fault.status or FOUND
    return Reply(status, b"", "text/plain", str(status), reply.after, (("Location", location),))


def without_cursor(params: Mapping[str, str]) -> dict[str, str]:
    """Return what a request asks for without where it wants to go on: so each page is the newest."""
    return {name: value for name, value in params.items() if name not in {"after", "before"}}
