"""Rankings → who was a member when: the spans of Qlib's instruments files. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from types import MappingProxyType

from services.converter.lives import LONG_AGO, Life
from shared.grid import DAY, floor_day, floor_minute, from_ms

OPEN_END = "2099-12-31 23:59:59"
_FORMAT = "%Y-%m-%d %H:%M:%S"
_SECOND = timedelta(seconds=1)

_HALTED_BEFORE_END = DAY
"""How long before its end trading in an instrument may stop."""

Span = tuple[datetime, datetime]
"""The opens of the first and the last bar of one minute."""


def spans(rankings: Iterable[tuple[datetime, frozenset[str]]]) -> dict[str, list[tuple[datetime, datetime | None]]]:
    """Return for each symbol when it was a member: [from one ranking, to the one that dropped it), None: still.

    rankings: (ranked_time, members), in order of time.
    """
    found: dict[str, list[tuple[datetime, datetime | None]]] = defaultdict(list)
    since: dict[str, datetime] = {}
    for ranked_time, members in rankings:
        for symbol in since.keys() - members:
            found[symbol].append((since.pop(symbol), ranked_time))
        since |= dict.fromkeys(members - since.keys(), ranked_time)
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


def all_lines(bars: Mapping[str, Span], lives: Mapping[str, Sequence[Life]] = MappingProxyType({})) -> str:
    """Return `all.txt`: whole days from the first to the last bar of each symbol, so that it fits every frequency.

    A symbol that stood for several instruments has a row for each: they meet where the next one begins.
    """
    lines = []
    for symbol, (first, last) in sorted(bars.items()):
        begins = [from_ms(life.begin) for life in lives.get(symbol, ()) if life.begin != LONG_AGO]
        edges = [floor_day(first), *(at for at in begins if first < at <= last), floor_day(last) + DAY]
        lines += [
            f"{symbol}\t{begin:{_FORMAT}}\t{end - _SECOND:{_FORMAT}}\n" for begin, end in pairwise(edges) if begin < end
        ]
    return "".join(lines)


def delisted_lines(bars: Mapping[str, Span], lives: Mapping[str, Sequence[Life]], until: datetime) -> str:
    """Return `delisted.txt`: a row for each life that is over, from its first minute in the dataset to its last.

    A symbol whose bars end otherwise is merely not collected any more; so is one that was delisted long after its last
    bar. An end that the calendar, which ends at `until`, does not reach is not known to it yet.
    """
    parts = ((symbol, _part_of(span, life, until)) for symbol, span in bars.items() for life in lives.get(symbol, ()))
    over = sorted((symbol, *part) for symbol, part in parts if part is not None)
    return "".join(f"{symbol}\t{first:{_FORMAT}}\t{last:{_FORMAT}}\n" for symbol, first, last in over)


def _part_of(bars: Span, life: Life, until: datetime) -> Span | None:
    """Return the first minute in the bars and the last of all of a life that is over, if the bars reach its end."""
    if life.end is None or from_ms(life.end) > until:
        return None
    begin = bars[0] if life.begin == LONG_AGO else max(bars[0], from_ms(life.begin))
    end = _last_minute(from_ms(life.end))
    if end - bars[1] > _HALTED_BEFORE_END:
        return None
    return (begin, end) if begin <= min(bars[1], end) else None


def _last_minute(end: datetime) -> datetime:
    """Return the open of the last minute that began before an instant."""
    return floor_minute(end - timedelta(microseconds=1))


def _floor_second(instant: datetime) -> datetime:
    return instant.replace(microsecond=0)


def _ceil_second(instant: datetime) -> datetime:
    floor = _floor_second(instant)
    return floor if floor == instant else floor + _SECOND
