"""What is compared with the ledger day by day as days change, judged by comparing everything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.collector.tracking.instrument import GRACE
from services.collector.tracking.universe import Reach, Tracker
from shared.datasets.ledger import CANDLES
from shared.grid import DAY, days_between
from shared.ledger.day import DayLedger
from shared.ledger.minutes import Coverage, day_mask, span_mask
from shared.ledger.replica import LedgerCopy
from tests.support.builders import DAY_0, MIDNIGHT, a_ranking, minute

BTC = "BTC_USDT"
END = minute(100)
BEGIN = MIDNIGHT - 2 * DAY
FINDINGS = ("absent", "halted", "refused")

NUMBERS = st.tuples(st.integers(-2 * 1440, 99), st.integers(1, 1500)).map(lambda two: (two[0], min(100, sum(two))))
SPANS = NUMBERS.map(lambda two: (minute(two[0]), minute(two[1])))
MASKS = st.tuples(st.integers(0, 1439), st.integers(0, 1439)).map(lambda two: span_mask(min(two), max(two)))
DAYS = st.integers(-2, 0).map(lambda number: DAY_0 + number * DAY)
LEDGERS = st.builds(DayLedger, wanted=MASKS, received=MASKS, absent=MASKS, halted=MASKS, refused=MASKS)
STEPS = st.one_of(
    st.tuples(st.just("mark"), st.sampled_from(["seen", *FINDINGS, "unwanted"]), SPANS),
    st.tuples(st.just("ledger"), DAYS, st.one_of(st.none(), LEDGERS)),
    st.tuples(st.just("publish")),
    st.tuples(st.just("take back")),
    st.tuples(st.just("report")),
    st.tuples(st.just("begin"), NUMBERS.map(lambda two: minute(two[0]))),
)


def by_comparing_everything(tracker, wanted):
    """Return what the ledger does not know yet: (finding, day) → minutes."""
    ledger, found = tracker._ledger, {}
    for day in days_between(wanted.begin, END):
        known = ledger.of(BTC, day).wanted | wanted.unwanted.days.get(day, 0)
        found["wanted", day] = day_mask(day, wanted.begin, END) & ~known
    for finding in FINDINGS:
        for day, mask in getattr(wanted, finding).days.items():
            found[finding, day] = mask & ~getattr(ledger.of(BTC, day), finding)
    return {key: mask for key, mask in found.items() if mask}


def reported(tracker):
    found = {}
    for verdict in tracker.pending_verdicts("okx", END + GRACE):
        assert verdict.symbols == (BTC,)
        minutes = Coverage()
        minutes.add_span(verdict.begin, verdict.end)
        for day, mask in minutes.days.items():
            found[verdict.verdict, day] = found.get((verdict.verdict, day), 0) | mask
    return found


class Everything:
    """Takes back what was published and is not stored by comparing all days with all that was published."""

    def __init__(self, tracker):
        self.tracker = tracker
        self.wanted = tracker.symbols[BTC]
        self.published = {}

    def publish(self):
        self.published = dict(self.wanted.seen.days)

    def left(self):
        """Return what is to be seen still: day → minutes."""
        ledger = self.tracker._ledger
        kept = {
            day: mask & ~(self.published.get(day, 0) & ~ledger.of(BTC, day).stored)
            for day, mask in self.wanted.seen.days.items()
        }
        return {day: mask for day, mask in kept.items() if mask}


@given(st.lists(STEPS, max_size=25))
@pytest.mark.invariant(3)
@pytest.mark.invariant(7)
def test_comparing_the_days_that_changed_finds_what_comparing_everything_finds(steps):
    """Invariants 3 and 7: in whatever order rows, verdicts and the ledger change, and the ledger forgets."""
    copy = LedgerCopy(exchange="okx")
    tracker = Tracker(Reach(2), copy, CANDLES)
    tracker.apply(a_ranking(BTC, ranked_time=END), END, {})
    wanted, everything = tracker.symbols[BTC], Everything(tracker)
    assert wanted.begin == BEGIN
    handed = None
    for kind, *arguments in [*steps, ("report",), ("publish",), ("take back",)]:
        match kind, *arguments:
            case "mark", name, (begin, end):
                getattr(wanted, name).add_span(begin, end)
            case "ledger", day, ledger:
                copy[CANDLES].replace(day, {} if ledger is None else {BTC: ledger})
            case "begin", begin:
                wanted.forget_before(begin)
            case ("report",):
                assert reported(tracker) == by_comparing_everything(tracker, wanted)
            case ("publish",):
                handed = tracker.published()
                everything.publish()
            case ("take back",) if handed is not None:
                expected, before = everything.left(), wanted.seen.count()
                lost = tracker.take_back_lost(handed)
                assert dict(wanted.seen.days) == expected
                assert lost == before - wanted.seen.count()
                handed = None


@pytest.mark.invariant(9)
def test_a_day_that_is_stored_and_did_not_change_is_not_compared_again():
    """Invariant 9: what it costs follows what is new."""
    copy = LedgerCopy(exchange="okx")
    stored = DayLedger(wanted=span_mask(0, 1439), received=span_mask(0, 1439))
    for number in range(1, 91):
        copy[CANDLES].replace(DAY_0 - number * DAY, {BTC: stored})
    tracker = Tracker(Reach(90), copy, CANDLES)
    tracker.apply(a_ranking(BTC, ranked_time=END), END, {})

    assert len(tracker.published()[BTC]) == 90
    assert tracker.take_back_lost(tracker.published()) == 0
    assert tracker.published() == {BTC: {}}

    copy[CANDLES].replace(DAY_0 - DAY, {BTC: DayLedger(wanted=span_mask(0, 1439))})
    tracker.symbols[BTC].seen.add(minute(3))
    assert set(tracker.published()[BTC]) == {DAY_0 - DAY, DAY_0}
