"""Which maintenance of OKX halts the trading of swaps? Pure."""

from collections.abc import Sequence

import msgspec

from shared.exchanges.base import Maintenance, Page
from shared.exchanges.okx.values import Text, read_each, read_row, text_of, time_of, time_or_none

_TRADING_SERVICES = {"5", "9", ""}
"""serviceType of a maintenance that can halt the trading of swaps: 5 trading, 9 trading by batches of products; older
rows have none. Others concern WebSocket (0), single accounts (8), copy trading (11), bots and so on."""

_PRODUCTION = {"1", ""}
"""env of the exchange itself; 2 is the demo environment."""


class _MaintenanceRow(msgspec.Struct):
    begin: Text
    title: Text = None
    state: Text = None
    end: Text = None
    serviceType: Text = None  # noqa: N815
    env: Text = None


def maintenance_of(row: object) -> Maintenance:
    """Read a row of /system/status. Raises `RowError`."""
    read = read_row(row, _MaintenanceRow)
    return Maintenance(
        title=text_of(read.title)[:200],
        state=text_of(read.state),
        begin=time_of(read.begin, "begin"),
        end=time_or_none(read.end, "end"),
        halts_swaps=text_of(read.serviceType) in _TRADING_SERVICES and text_of(read.env) in _PRODUCTION,
    )


def maintenances_of(rows: Sequence[object]) -> Page[Maintenance]:
    """Read the list of maintenance windows."""
    return read_each(rows, maintenance_of)
