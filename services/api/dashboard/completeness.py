"""The page /completeness: a heat map of the ledger, without a script and without anything from elsewhere. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import lru_cache
from html import escape

from services.api.completeness.days import Counted, Day, per_cent, sum_of
from services.api.completeness.query import Span
from services.api.text import counted
from shared.grid import days_between
from shared.ledger.day import Account, MinuteVerdict
from shared.ledger.minutes import day_mask

_LEVELS = (
    ("a", 1.0, "complete"),
    ("b", 0.999, "99.9 % or more"),
    ("c", 0.99, "99 % or more"),
    ("d", 0.9, "90 % or more"),
    ("e", 0.0, "less"),
)
"""Style → from which share on, and what the legend calls it."""
_NO_CANDLES = "n"
_MANY = 1000

_STYLE = """
:root { color-scheme: light dark; font: 13px/1.4 system-ui, sans-serif }
body { margin: 1.5rem }
h1 { font-size: 1.3rem; margin: 0 } .total { font-size: 2.2rem; font-weight: 600; margin: .2rem 0 0 }
p { margin: .3rem 0 } .quiet { opacity: .7 }
table { border-collapse: separate; border-spacing: 2px; margin-top: 1rem }
thead th { position: sticky; top: 0; background: Canvas; font-weight: 400; font-size: 11px; padding: 2px 0 }
tbody th, tfoot th { text-align: left; font-weight: 400; white-space: nowrap; padding-right: .8rem;
  position: sticky; left: 0; background: Canvas }
td { width: 22px; min-width: 22px; height: 18px; text-align: center; font-size: 10px; border-radius: 3px; color: #000 }
td.s { width: auto; color: inherit; text-align: right; padding-left: .8rem; font-size: 12px;
  font-variant-numeric: tabular-nums }
tr.all td, tr.all th { font-weight: 600 }
.a { background: #1a9e76 } .b { background: #b5d96c } .c { background: #fee08b } .d { background: #f4853f }
.e { background: #c51b3f; color: #fff } .n { background: #9aa5c9 } .o { outline: 1px dotted #888; outline-offset: -1px }
.w { box-shadow: inset 0 0 0 2px #6a3d9a }
.key span { display: inline-block; width: 14px; height: 14px; border-radius: 3px; vertical-align: -2px;
  margin: 0 .35rem 0 .9rem }
"""


def page(days: Sequence[Day], span: Span, sentence: str) -> str:
    """Draw a row per symbol, those that lack the most first, and a column per day; on top all of them."""
    columns = days_between(span.begin, span.end)
    counted = {day.day: day.count(day_mask(day.day, span.begin, span.last)) for day in days}
    rows = _rows(counted)
    sums = {name: sum_of(found.values()) for name, found in rows.items()}
    order = sorted(rows, key=lambda name: (-sums[name].minutes.missing, -sums[name].settlements.missing, name))
    everything = sum_of(sums.values())
    whole = {day: sum_of(found.values()) for day, found in counted.items()}
    head = "".join(f'<th title="{day}">{day:%d}</th>' for day in columns)
    body = [_row("all symbols", whole, everything, columns, style="all")]
    body += [_row(name, rows[name], sums[name], columns) for name in order]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="60">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>qlib-crypto: {per_cent(everything) or "nothing"} complete</title><style>{_STYLE}</style></head><body>
<h1>Completeness of the last {len(columns)} days</h1>
<p class="total">{per_cent(everything) or "nothing to show yet"}</p>
<p>{len(rows):,} symbols. {escape(_counts(everything))}.</p><p>Now: {escape(sentence)}.</p>
{_legend()}
<table><thead><tr><th></th>{head}<th></th></tr></thead><tbody>
{"\n".join(body)}
</tbody></table>
<p class="quiet">Days are UTC, {columns[0]} to {columns[-1]}; counted up to {span.until:%Y-%m-%d %H:%M:%S} of the
exchange's clock, younger minutes are still being written. A number is how many minutes are missing.
As numbers: /ledger, /gaps.</p>
</body></html>
"""


def _rows(by_day: Mapping[date, Mapping[str, Counted]]) -> dict[str, dict[date, Counted]]:
    """Turn counts by day into counts by symbol; symbols of which nothing was wanted have no row."""
    rows: dict[str, dict[date, Counted]] = {}
    for day, found in by_day.items():
        for name, one in found.items():
            if one:
                rows.setdefault(name, {})[day] = one
    return rows


def _row(name: str, by_day: Mapping[date, Counted], whole: Counted, columns: Iterable[date], style: str = "") -> str:
    title = escape(name)
    cells = [_cell(f"{title} {day}", by_day.get(day)) for day in columns]
    opening = f'<tr class="{style}">' if style else "<tr>"
    return f'{opening}<th scope="row">{title}</th>{"".join(cells)}<td class="s">{per_cent(whole) or ""}</td></tr>'


def _cell(title: str, found: Counted | None) -> str:
    if not found:
        return f'<td class="o" title="{title}: nothing wanted"></td>'
    style, text, counts = _appearance(found)
    return f'<td class="{style}" title="{title}: {counts}">{text}</td>'


@lru_cache(maxsize=4096)
def _appearance(found: Counted) -> tuple[str, str, str]:
    """Return style, text and tooltip of a cell. Nearly all cells are alike."""
    style = level(found.minutes) + (" w" if found.settlements.missing else "")
    missing = found.minutes.missing
    text = "" if not missing else str(missing) if missing < _MANY else f"{missing // _MANY}k"
    return style, text, escape(_counts(found))


def level(account: Account) -> str:
    """Return the style that a share has; one of its own where the exchange has no candle at all."""
    share = account.complete
    if share is None:
        return _NO_CANDLES if account.wanted else "o"
    return next(style for style, least, _ in _LEVELS if share >= least)


def _counts(found: Counted) -> str:
    """Return the counts that are not zero, as text."""
    minutes, settled = found
    parts = [f"{count:,} {verdict}" for verdict in MinuteVerdict if (count := getattr(minutes, verdict))]
    if settled.wanted:
        lacking = settled.missing
        parts.append(counted(settled.wanted, "settlement") + (f", {lacking:,} of them missing" if lacking else ""))
    return f"{minutes.wanted:,} minutes wanted: {', '.join(parts)}" if parts else "nothing wanted yet"


def _legend() -> str:
    styles = [(style, text) for style, _, text in _LEVELS]
    styles += [(_NO_CANDLES, "the exchange has no candles"), ("o", "nothing wanted"), ("w", "a settlement is missing")]
    return '<p class="key">' + "".join(f'<span class="{style}"></span>{text}' for style, text in styles) + "</p>"
