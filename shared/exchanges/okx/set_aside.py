"""What do rows of OKX that were set aside say when they are read again? Pure."""

from datetime import datetime
from typing import Any

from shared.datasets.registry import AnyEvent
from shared.datasets.row import Source
from shared.exchanges.base import Page, RowError
from shared.exchanges.okx.candles import candles_of
from shared.exchanges.okx.funding import funding_of


def reread(source: str, payload: object, *, received: datetime, now: datetime) -> list[AnyEvent]:
    """Read rows that were set aside again: one with its instrument, or a frame of the WebSocket with several.

    source: `candles` or `funding` of the stream, or `history`. A partial candle leaves nothing, as when it is live.
    Raises `RowError`.
    """
    match payload:
        case {"instId": str(inst_id), "row": row}:
            rows = [row]
        case {"arg": {"instId": str(inst_id)}, "data": [*rows]}:
            pass
        case _:
            raise RowError("the payload does not say of which instrument it is")
    events: list[AnyEvent] = []
    if source in ("candles", "history"):
        came: Source = "ws" if source == "candles" else "rest"
        _extend(events, candles_of(inst_id, rows, source=came, receive_time=received, exchange_now=now))
    elif source == "funding":
        for row in rows:
            _extend(events, funding_of(inst_id, row, source="ws", receive_time=received, exchange_now=now))
    else:
        raise RowError(f"rows of {source!r} cannot be read again")
    return events


def _extend(events: list[AnyEvent], page: Page[Any]) -> None:
    """Take the events of a page. Raises `RowError` for the first row that is refused still."""
    for refused in page.refused:
        raise RowError(refused.reason)
    events += page.events
