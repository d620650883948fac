"""Rankings → who was a member when: the spans of Qlib's instruments files. Pure."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

OPEN_END = "2099-12-31 23:59:59"
_FORMAT = "%Y-%m-%d %H:%M:%S"
_SECOND = timedelta(seconds=1)


def spans(rankings: Iterable[tuple[datetime, frozenset[str]]]) -> dict[str, list[tuple[datetime, datetime | None]]]:
    """Return for each symbol when it was a member: [from one ranking, to the one that dropped it), None: still.

    rankings: (ranked_time, members), in order of time.
    """
    found: dict[str, list[tuple[datetime, datetime | None]]] = defaultdict(list)
    since: dict[str, datetime] = {}
    for ranked_time, members in rankings:
        for symbol in [member for member in since if member not in members]:
            found[symbol].append((since.pop(symbol), ranked_time))
        for symbol in members:
            since.setdefault(symbol, ranked_time)
    for symbol, begin in since.items():
        found[symbol].append((begin, None))
    return {symbol: sorted(found[symbol], key=lambda span: span[0]) for symbol in sorted(found)}


def market_lines(member_spans: dict[str, list[tuple[datetime, datetime | None]]]) -> str:
    """Return the text of an instruments file; Qlib takes both ends as inclusive, at a resolution of seconds.

    A bar is a member's if the symbol was a member when the bar opened: the span begins with the first whole second at
    or after the ranking that admitted it, and ends with the last whole second before the one that dropped it.
    """
    lines = []
    for symbol, parts in member_spans.items():
        for begin, end in parts:
            first = _ceil_second(begin)
            last = None if end is None else _floor_second(end - timedelta(microseconds=1))
            if last is None or first <= last:
                lines.append(f"{symbol}\t{first:{_FORMAT}}\t{OPEN_END if last is None else last.strftime(_FORMAT)}\n")
    return "".join(lines)


def all_lines(days: dict[str, tuple[datetime, datetime]]) -> str:
    """Return `all.txt`: one row a symbol, whole days from its first to its last bar: it fits every frequency."""
    return "".join(
        f"{symbol}\t{first:%Y-%m-%d} 00:00:00\t{last:%Y-%m-%d} 23:59:59\n"
        for symbol, (first, last) in sorted(days.items())
    )


def _floor_second(instant: datetime) -> datetime:
    return instant.replace(microsecond=0)


def _ceil_second(instant: datetime) -> datetime:
    floor = _floor_second(instant)
    return floor if floor == instant else floor + _SECOND
