"""What a person sees of the api's answers. Pure."""

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

_STYLES = {
    "ok": "green",
    "stale": "yellow",
    "lagging": "yellow",
    "degraded": "yellow",
    "warning": "yellow",
    "down": "red",
    "unknown": "red",
    "critical": "red",
}
_TIME_DIGITS = 16
"""Of an ISO time: to the minute."""


def coloured(word: str) -> Text:
    """Return a verdict or a severity in its colour."""
    return Text(word, style=_STYLES.get(word, "dim"))


def plain_table(*titles: str) -> Table:
    """Return an empty table without lines, which also reads well in a file."""
    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def freshness(lag: Mapping[str, Any] | None) -> str:
    """Return how old the candles are; empty where there are none."""
    symbols = [row for row in lag["symbols"] if row["age_seconds"] is not None] if lag else []
    if not symbols:
        return ""
    ages = sorted(row["age_seconds"] for row in symbols)
    oldest = symbols[0]["symbol"]
    return f"{len(symbols)} symbols stored; newest candle {ages[0]:.0f} s old, oldest {ages[-1]:.0f} s ({oldest})"


def services_table(services: list[Mapping[str, Any]]) -> Table:
    """Return a row for each service."""
    table = plain_table("service", "verdict", "reason")
    for row in services:
        name = row["service"]
        table.add_row(name, coloured(row["verdict"]), escape(row["reason"].removeprefix(f"{name}: ")))
    return table


def gaps_table(gaps: list[Mapping[str, Any]]) -> Table:
    """Return a row for each run of minutes."""
    table = plain_table("symbol", "begin (UTC)", "end, exclusive", "minutes", "age")
    for gap in gaps:
        begin, end = minute(gap["begin"]), minute(gap["end"])
        table.add_row(escape(gap["symbol"]), begin, end, f"{gap['minutes']:,}", age(gap["age_seconds"]))
    return table


def settlements_table(settlements: list[Mapping[str, Any]]) -> Table:
    """Return a row for each settlement whose rate is missing."""
    table = plain_table("symbol", "settled (UTC)", "age")
    for one in settlements:
        table.add_row(escape(one["symbol"]), minute(one["at"]), age(one["age_seconds"]))
    return table


def ranking_table(members: list[Mapping[str, Any]]) -> Table:
    """Return a row for each member, in order of rank."""
    table = plain_table("rank", "symbol", "funding rate", "score", "every")
    for member in members:
        hours = member["interval_hours"]
        table.add_row(
            str(member["rank"]),
            escape(member["symbol"]),
            _share(member["funding_rate"]),
            _share(member["score"]),
            "" if hours is None else f"{hours} h",
        )
    return table


def alerts_table(alerts: list[Mapping[str, Any]]) -> Table:
    """Return a row for each open alert, with what to do."""
    table = plain_table("since (UTC)", "severity", "what", "to do")
    for alert in alerts:
        what = escape(alert["what"])
        table.add_row(minute(alert["since"]), coloured(alert["severity"]), what, escape(alert["todo"] or "nothing"))
    return table


def minute(iso_time: str) -> str:
    """Return a time of the api's to the minute."""
    return iso_time[:_TIME_DIGITS].replace("T", " ")


def age(seconds: float) -> str:
    """Return a duration in its two largest units."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86_400)
    if days:
        return f"{days} d {hours % 24} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:+.4%}"
