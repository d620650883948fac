"""Names that stand for more than one contract, on one stack while it collects.

One is delisted and listed again, one is redenominated, one goes while the collector is down. Each step is taken once
what it follows from is stored, so the instants differ from run to run. docs/faults.md has the rows `another life` and
`gone meanwhile`.
"""

import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from cli.stack import Stack
from proofs.judges.bins import FREQUENCIES, read_bin, read_calendar, read_spans
from proofs.judges.recompute import Options, Raw
from proofs.judges.values import judge_values
from proofs.units import MINUTE_MS
from services.converter.convert import convert
from shared.datasets.instrument import ENDED_STATE
from shared.grid import DAY, MINUTE, ceil_minute, floor_minute, from_ms, to_ms
from tests.support.builders import wait_for
from tests.support.field_rows import UNJUDGED
from tests.support.patience import patience
from tests.support.running import Running, note_healed

pytestmark = [pytest.mark.proof, pytest.mark.invariant(7), pytest.mark.timeout(900)]

SYMBOLS = ("BTC_USDT", "ETH_USDT", "SOL_USDT", "XRP_USDT", "DOGE_USDT")
AGAIN, REBASED, LOST = "XRP_USDT", "ETH_USDT", "DOGE_USDT"
MOVED = "SOL_USDT"
"""Its delisting is announced, and put off again and again: no two looks agree on it, so nothing of it is stored."""
MARKET = ["--symbols", "5", "--seed", "7", "--start", "2026-03-01T07:52:00", "--speed", "60"]
SETTINGS = {"TOP_N": "all", "BACKFILL_DAYS": "1", "FLUSH_SECONDS": "1", "COMPACT_EVERY": "0.1", "CONVERT_EVERY": "5"}
BEGIN = datetime(2026, 2, 28, tzinfo=UTC)
LEAD = 3 * MINUTE
"""How far ahead a change is made: three of our seconds."""
NOTICE = 10 * MINUTE
"""How long before its end a delisting is announced: the list is looked at every five seconds."""
LONG_NOTICE = 20 * MINUTE
"""The same, at the start: history comes meanwhile, and then the collector is stopped."""
HALF_HOUR_MS = 30 * MINUTE_MS
STEP_SECONDS = 60


class Exchange(Running):
    """The stack, and what becomes of its instruments."""

    def soon(self):
        """Return an instant at which a change can be made."""
        return ceil_minute(self.now()) + LEAD

    def change(self, symbol, kind, at, **fields):
        """Make a change of an instrument; return its instant."""
        inst_id = symbol.replace("_", "-") + "-SWAP"
        self.stack.tell_simulator("/sim/market", {"kind": kind, "instId": inst_id, "at": to_ms(at), **fields})
        return at

    def is_said(self, symbol, **fields):
        """Return whether the newest stored definition of a symbol has these values."""
        return self.said(symbol, *fields)[-1:] == [tuple(fields.values())]

    @contextmanager
    def watched(self):
        """Let the collector look at the list every five seconds, not every minute: at each look, one row is another."""
        over = threading.Event()

        def put_off():
            for number in count():
                now = self.now()
                self.change(MOVED, "delist", floor_minute(now) + DAY + number * MINUTE, announce=to_ms(now))
                if over.wait(1):
                    return

        thread = threading.Thread(target=put_off)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


class Story:
    """What happened when, and the dataset that was made of it."""

    def __init__(self, running: Exchange, folder: Path) -> None:
        self.running = running
        self.qlib_dir = running.stack.qlib_dir
        self.again = folder / "again"
        """The same raw data, converted once more when all was over."""

    def bars(self, symbol, field, frequency="1min"):
        """Return the bars of a symbol in which a field is a number: open → value."""
        calendar = read_calendar(self.again, frequency)
        values = read_bin(self.again, symbol, field, frequency).part(0, len(calendar))
        return {int(calendar[place]): float(values[place]) for place in np.flatnonzero(np.isfinite(values))}

    def in_both_lives(self, symbol, field, born):
        """Return the values of a field before the second life began, and from then on."""
        bars = self.bars(symbol, field)
        return tuple(
            {round(value, 6) for at, value in bars.items() if (at >= to_ms(born)) == later} for later in (False, True)
        )


def shared_bar(one, other):
    """Return the shortest bar that two minutes lie in: frequency, open and close."""
    for frequency, minutes in FREQUENCIES.items():
        step = minutes * MINUTE_MS
        if (place := to_ms(one) // step) == to_ms(other) // step:
            return frequency, from_ms(place * step), from_ms((place + 1) * step)
    raise AssertionError(f"{one} and {other} are of different days")


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """Let it all happen, up to a bar in which each of two names has stood for two contracts."""
    folder = tmp_path_factory.mktemp("lives")
    with Stack(folder / "run", SETTINGS, simulator=MARKET) as stack:
        running = Exchange(stack, SYMBOLS)
        story = Story(running, folder)
        with running.watched():
            soon = running.now() + LONG_NOTICE * patience(1)
            story.lost = running.change(LOST, "delist", ceil_minute(soon), announce=to_ms(running.now()))
            running.until_live()
            running.until_whole(BEGIN)
            wait_for(lambda: _all_said(running, story), STEP_SECONDS, every=0.5)
            _go_while_the_collector_is_down(running, story)
            _live_twice(running, story)
        _look_at_the_end(running, story)
    convert(stack.data_dir, story.again, until=None)
    return story


def _all_said(running, story):
    others = all(running.said(symbol, "state") for symbol in SYMBOLS if symbol != MOVED)
    return others and running.is_said(LOST, state="live", end_time=story.lost)


def _go_while_the_collector_is_down(running, story):
    running.stack.stop_program("collector")
    story.down = floor_minute(running.now())
    assert story.down < story.lost
    wait_for(lambda: running.now() > story.lost + MINUTE, STEP_SECONDS, every=0.5)
    running.stack.start_program("collector")
    story.back = running.now()


def _live_twice(running, story):
    announced = running.now()
    # Just after a half hour has begun, so that a bar of half an hour has minutes of both lives.
    half_hour = -(-to_ms(announced + NOTICE - 2 * MINUTE) // HALF_HOUR_MS) * HALF_HOUR_MS
    story.delisted = running.change(AGAIN, "delist", from_ms(half_hour) + 2 * MINUTE, announce=to_ms(announced))
    story.stopped = running.change(REBASED, "rebase", running.soon(), ctVal="0.01")
    wait_for(lambda: running.is_said(REBASED, state="rebase"), STEP_SECONDS, every=0.5)
    story.resumed = running.change(REBASED, "resume", running.soon())
    wait_for(lambda: running.is_said(AGAIN, state=ENDED_STATE), STEP_SECONDS, every=0.5)
    story.listed = running.change(AGAIN, "list", running.soon() + LEAD, announce=to_ms(running.now()), ctVal="10")
    wait_for(lambda: running.now() > story.listed, STEP_SECONDS, every=0.5)
    began = time.monotonic()
    wait_for(lambda: running.is_said(AGAIN, state="live", list_time=story.listed), STEP_SECONDS, every=0.5)
    wait_for(lambda: running.is_said(REBASED, state="live", contract_value=0.01), STEP_SECONDS, every=0.5)
    note_healed("another life", time.monotonic() - began)
    wait_for(lambda: running.is_said(LOST, state=ENDED_STATE), STEP_SECONDS, every=0.5)
    ((_, known),) = running.said(LOST, "state", "known_time")[-1:]
    note_healed("gone meanwhile", (known - story.back) / MINUTE)


def _look_at_the_end(running, story):
    """Wait until the bars that have minutes of two lives are over, and until all is stored as it was, and converted."""
    story.mixed = {
        AGAIN: shared_bar(story.delisted - 2 * MINUTE, story.listed),
        REBASED: shared_bar(story.stopped - MINUTE, story.resumed),
    }
    over = max(close for _, _, close in story.mixed.values())
    wait_for(lambda: running.now() > over + 2 * MINUTE, 300, every=0.5)
    story.end = Exchange(running.stack, ("BTC_USDT", REBASED, MOVED)).until_whole(BEGIN)
    # Of what ended, the last minute cannot be had any more; nor what was traded while the collector was down.
    Exchange(running.stack, (LOST,)).until_whole(BEGIN, end=story.down - MINUTE)
    Exchange(running.stack, (AGAIN,)).until_whole(BEGIN, end=story.delisted - MINUTE)
    Exchange(running.stack, (AGAIN,)).until_whole(story.listed, end=story.end)
    wait_for(lambda: _all_accounted_for(running, story), STEP_SECONDS, every=0.5)
    story.of_lost = running.ledger(LOST, BEGIN, story.end)
    story.between = running.ledger(AGAIN, story.delisted, story.listed)
    story.published = {}
    wait_for(lambda: _is_published(story, over), STEP_SECONDS, every=0.5)


def _all_accounted_for(running, story):
    return all(running.ledger(symbol, BEGIN, story.end)["missing"] == 0 for symbol in SYMBOLS)


def _is_published(story, until):
    """Return whether the running converter has come as far; note what it says of the lives."""
    calendar = read_calendar(story.qlib_dir, "1min")
    if not len(calendar) or calendar[-1] < to_ms(until):
        return False
    story.published = read_spans(story.qlib_dir, "all")
    return len(story.published[AGAIN]) == len(story.published[REBASED]) == 2


def test_every_minute_of_both_lives_is_stored_as_it_was_and_none_between(story):
    """Nothing that differed from the truth was left when the story ended: `until_whole` fails where it does."""
    opens = set(story.bars(AGAIN, "close"))
    assert [at for at in opens if to_ms(story.delisted) <= at < to_ms(story.listed)] == []
    assert story.between["received"] + story.between["healed"] == 0
    assert {*range(to_ms(BEGIN), to_ms(story.delisted - MINUTE), MINUTE_MS)} <= opens
    assert {*range(to_ms(story.listed), to_ms(story.end), MINUTE_MS)} <= opens
    halt = range(to_ms(story.stopped), to_ms(story.resumed), MINUTE_MS)
    expected = {*range(to_ms(BEGIN), to_ms(story.end), MINUTE_MS)} - {*halt}
    assert {at for at in story.bars(REBASED, "close") if to_ms(BEGIN) <= at < to_ms(story.end)} == expected


def test_what_the_exchange_said_of_each_life_is_stored(story):
    said = story.running.said
    states = [state for (state,) in said(AGAIN, "state")]
    assert [state for state in states if state != "preopen"] == ["live", ENDED_STATE, "live"]
    assert ("live", story.listed, 10) == said(AGAIN, "state", "list_time", "contract_value")[-1]
    assert [row for row in said(REBASED, "state", "contract_value") if row[0] in {"live", "rebase"}] == [
        ("live", 0.1),
        ("rebase", 0.1),
        ("live", 0.01),
    ]
    assert said(LOST, "state", "end_time")[-2:] == [("live", story.lost), (ENDED_STATE, story.lost)]


def test_each_life_has_its_number_its_row_and_its_contract_value(story):
    spans = read_spans(story.again, "all")
    born = {AGAIN: story.listed, REBASED: from_ms(spans[REBASED][1][0])}
    assert story.stopped <= born[REBASED] < story.resumed
    for symbol, values in ((AGAIN, (100, 10)), (REBASED, (0.1, 0.01))):
        first, second = spans[symbol]
        assert (first[1] + 1000, second[0]) == (to_ms(born[symbol]), to_ms(born[symbol]))
        ended, began = story.published[symbol]
        assert (ended[1], began[0]) == (first[1], second[0])
        assert story.in_both_lives(symbol, "life", born[symbol]) == ({1}, {2})
        assert story.in_both_lives(symbol, "contract_value", born[symbol]) == ({values[0]}, {values[1]})
    assert [len(spans[symbol]) for symbol in ("BTC_USDT", MOVED, LOST)] == [1, 1, 1]


def test_no_funding_rate_is_carried_over(story):
    """The first settlement of either second life comes hours later, where the last one before was at 8."""
    for symbol, born in ((AGAIN, story.listed), (REBASED, story.resumed)):
        first, second = story.in_both_lives(symbol, "funding_rate", born)
        assert first
        assert second == set()
    assert max(story.bars("BTC_USDT", "funding_rate")) > to_ms(story.listed)


def test_no_bar_has_minutes_of_both_lives(story):
    for symbol, (frequency, opened, _) in story.mixed.items():
        assert to_ms(opened) not in story.bars(symbol, "close", frequency)
        assert to_ms(opened) in story.bars("BTC_USDT", "close", frequency)


def test_each_life_that_is_over_is_in_the_dataset_as_such(story):
    spans = read_spans(story.again, "delisted")
    assert {symbol: len(rows) for symbol, rows in spans.items()} == {AGAIN: 1, REBASED: 1, LOST: 1}
    assert spans[AGAIN][0][1] == to_ms(story.delisted - MINUTE)


def test_of_an_instrument_that_went_while_the_collector_was_down_nothing_is_missing(story):
    assert story.of_lost["missing"] == 0
    stored = story.of_lost["received"] + story.of_lost["healed"]
    assert (story.down - BEGIN) // MINUTE - 1 <= stored <= (story.lost - BEGIN) // MINUTE


@pytest.mark.skipif(bool(UNJUDGED), reason="a field lacks the judge's formula: test_one_row names it")
def test_the_dataset_is_what_its_definition_says(story):
    """Every field at every frequency, computed once more from the raw files."""
    found = judge_values(Raw(story.running.stack.data_dir), story.again, Options())
    assert found.clean, found.problems or found.total
