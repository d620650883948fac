"""Spans, answers, files of old days, and the page."""

from datetime import timedelta
from html.parser import HTMLParser

import pytest

from services.api.completeness.days import Day, LedgerView
from services.api.completeness.query import Span, SpanError, days_of, first_day, gaps_of_span, ledger_of_span, span_of
from services.api.completeness.reader import LedgerReader
from services.api.dashboard.completeness import level, page
from shared.datasets.ledger import CANDLES, LedgerRow
from shared.grid import DAY
from shared.ledger.day import Account, DayLedger, MinuteVerdict, to_row
from shared.ledger.minutes import FULL_DAY, span_mask
from shared.storage.layout import Partition
from shared.storage.parquet import table_of, write_table
from tests.support.builders import DAY_0, MIDNIGHT, minute

NOW = minute(12 * 60)
UNTIL = NOW - timedelta(seconds=90)
WHOLE = DayLedger(wanted=FULL_DAY, received=FULL_DAY)
WEEK = timedelta(days=7)


def span(begin=None, end=None):
    return span_of(begin, end, now=NOW, until=UNTIL, usual=WEEK)


def a_day(day, **ledgers):
    return Day(day, {CANDLES: ledgers})


def write_day(root, day, **ledgers):
    rows = [to_row("okx", symbol, day, ledger, "v", about=CANDLES) for symbol, ledger in ledgers.items()]
    path = Partition(LedgerRow.dataset, day).path(root)
    write_table(path, table_of(LedgerRow, rows))
    return path


def test_a_span_is_the_last_week_up_to_now_unless_something_else_is_asked_for():
    assert span() == Span(NOW - WEEK, NOW, NOW - timedelta(seconds=90), NOW)
    assert span(end=MIDNIGHT).begin == MIDNIGHT - WEEK
    assert span(begin=MIDNIGHT).end == NOW
    assert span(begin=NOW + DAY, end=NOW + 2 * DAY).last == NOW + DAY


@pytest.mark.parametrize(
    ("begin", "end", "reason"),
    [
        (NOW, NOW, "begin must be before end"),
        (NOW - 400 * DAY, NOW, "at most 366 days at a time, not 400.0"),
        (None, NOW.replace(year=1, month=1, day=2), "out of range"),
    ],
)
def test_no_span_is_refused_with_a_reason(begin, end, reason):
    with pytest.raises(SpanError, match=reason):
        span(begin, end)


def test_gaps_are_looked_for_as_far_as_the_bus_reaches():
    def of(*days):
        return LedgerView({day: Day(day, {}) for day in days}, NOW)

    assert first_day(of(DAY_0 - 40 * DAY, DAY_0), NOW) == MIDNIGHT - 40 * DAY
    assert first_day(of(DAY_0 - 800 * DAY), NOW) == NOW - 366 * DAY
    assert first_day(None, NOW) == first_day(of(), NOW) == NOW - 31 * DAY


@pytest.mark.invariant(7)
async def test_days_older_than_the_bus_are_read_from_their_files(tmp_path):
    yesterday, before = DAY_0 - DAY, DAY_0 - 2 * DAY
    write_day(tmp_path, before, BTC_USDT=WHOLE, ETH_USDT=DayLedger(wanted=FULL_DAY, received=FULL_DAY & ~1))
    write_day(tmp_path, yesterday, BTC_USDT=DayLedger())
    ledger = LedgerView({yesterday: a_day(yesterday, BTC_USDT=WHOLE), DAY_0: a_day(DAY_0, BTC_USDT=WHOLE)}, NOW)
    asked = span(begin=MIDNIGHT - 30 * DAY)

    answer = ledger_of_span(await days_of(LedgerReader(tmp_path), ledger, asked), asked, None)

    # Until 11:58:30, so 719 minutes of today.
    assert {row.symbol: (row.wanted, row.missing, row.complete) for row in answer.symbols} == {
        "BTC_USDT": (2 * 1440 + 719, 0, "100.000 %"),
        "ETH_USDT": (1440, 1, "99.930 %"),
    }
    assert (answer.total.received, answer.total.missing) == (3 * 1440 + 718, 1)


def test_a_file_is_read_again_only_when_it_has_changed(tmp_path):
    reader = LedgerReader(tmp_path)
    path = write_day(tmp_path, DAY_0, BTC_USDT=WHOLE)

    first = reader.stored([DAY_0, DAY_0 + DAY])
    again = reader.stored([DAY_0])
    write_day(tmp_path, DAY_0, BTC_USDT=DayLedger(wanted=1))
    changed = reader.stored([DAY_0])
    path.unlink()

    assert first.keys() == {DAY_0}
    assert again[DAY_0] is first[DAY_0]
    assert changed[DAY_0].minutes.ledgers == {"BTC_USDT": DayLedger(wanted=1)}
    assert reader.stored([DAY_0]) == {}


def test_an_unreadable_file_is_named(tmp_path):
    path = write_day(tmp_path, DAY_0, BTC_USDT=WHOLE)
    path.write_bytes(b"PAR1 no more")

    with pytest.raises(ValueError, match=r"ledger_20250405\.parquet is unreadable"):
        LedgerReader(tmp_path).stored([DAY_0])


def test_gaps_are_counted_whole_and_shown_up_to_the_limit():
    ledger = DayLedger(wanted=span_mask(0, 9), received=1 << 3 | 1 << 6)
    day = Day(DAY_0, {CANDLES: {"BTC_USDT": ledger}, "funding": {"BTC_USDT": DayLedger(wanted=1)}})
    asked = span(begin=MIDNIGHT)

    answer = gaps_of_span([day], asked, MinuteVerdict.MISSING, None, limit=2)

    assert (answer.total, answer.minutes, answer.settlements_total) == (3, 8, 1)
    assert [(gap.begin, gap.end, gap.minutes, gap.age_seconds) for gap in answer.gaps] == [
        (minute(7), minute(10), 3, 713 * 60),
        (minute(4), minute(6), 2, 716 * 60),
    ]
    assert (answer.settlements[0].at, answer.settlements[0].age_seconds) == (MIDNIGHT, 12 * 3600)


class Cells(HTMLParser):
    """What a browser would see of the table."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.elsewhere, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.elsewhere += [found[name] for name in ("src", "href") if name in found]
        if tag not in {"meta", "br"}:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag == "td" and "title" in found:
            self.rows[-1].append((found["class"], found["title"]))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def drawn(days):
    asked = span(MIDNIGHT - 29 * DAY, MIDNIGHT + DAY)
    return page(days, asked, "no minute missing")


@pytest.mark.parametrize("symbols", [1, 500])
def test_the_page_has_a_row_per_symbol_and_a_column_per_day(symbols):
    names = [f"S{number}_USDT" for number in range(symbols)]
    days = [a_day(DAY_0 - number * DAY, **dict.fromkeys(names, WHOLE)) for number in range(1, 5)]
    text = drawn(days)
    cells = Cells(text)

    assert cells.elsewhere == []
    assert cells.open == []
    assert "<script" not in text
    assert len(cells.rows) == 1 + 1 + symbols  # head, all symbols, each symbol
    assert all(len(row) == 30 for row in cells.rows[1:])
    assert cells.rows[2][24] == ("o", f"S0_USDT {DAY_0 - 5 * DAY}: nothing wanted")
    assert cells.rows[2][25] == ("a", f"S0_USDT {DAY_0 - 4 * DAY}: 1,440 minutes wanted: 1,440 received")
    assert len(text) < 3_000_000


def test_the_symbol_that_lacks_the_most_comes_first_and_the_total_is_on_top():
    holey = DayLedger(wanted=FULL_DAY, received=FULL_DAY & ~span_mask(10, 24))
    candles, funding = {"AAA_USDT": WHOLE, "ZZZ_USDT": holey}, {"ZZZ_USDT": DayLedger(wanted=1)}
    text = drawn([Day(DAY_0 - DAY, {CANDLES: candles, "funding": funding})])
    top, first, second = Cells(text).rows[1:]

    tooltip = "1,440 minutes wanted: 1,425 received, 15 missing, 1 settlement, 1 of them missing"
    assert first[28] == ("d w", f"ZZZ_USDT 2025-04-04: {tooltip}")
    assert second[28][0] == "a"
    assert top[28][1].startswith("all symbols 2025-04-04: 2,880 minutes wanted")
    assert '<p class="total">99.444 %</p>' in text


def test_a_name_is_no_markup():
    assert "<b>" not in drawn([a_day(DAY_0 - DAY, **{"<b>": WHOLE})])


@pytest.mark.parametrize(
    ("account", "style"),
    [
        (Account(wanted=10, received=10), "a"),
        (Account(wanted=10_000, received=9_999, missing=1), "b"),
        (Account(wanted=100, received=99, missing=1), "c"),
        (Account(wanted=100, received=98, missing=2), "d"),
        (Account(wanted=10, missing=10), "e"),
        (Account(wanted=10, halted=10), "n"),
        (Account(), "o"),
    ],
)
def test_the_colour_says_the_share(account, style):
    assert level(account) == style
