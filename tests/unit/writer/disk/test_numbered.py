"""Files of numbered rows: what the ledger says of them, over midnight, too."""

from datetime import timedelta

import pytest

from services.writer.disk.ledger import scan_day
from shared.datasets import registry
from shared.ledger.day import DayLedger
from shared.ledger.minutes import FULL_DAY, span_mask
from tests.support.builders import DAY_0, minute, write_batch
from tests.support.other_channel.trade import TRADES, Trade

pytestmark = pytest.mark.invariant(7)

NEXT = DAY_0 + timedelta(days=1)
KEY = ("trades", "BTC_USDT")


@pytest.fixture(autouse=True)
def declared(monkeypatch):
    """Let the channel be one of those that there are."""
    monkeypatch.setitem(registry.BY_DATASET, "trades", Trade)
    monkeypatch.setitem(registry.COMPLETENESS, "trades", TRADES.events[Trade])


def trade(number, at, source="ws"):
    return Trade(
        exchange="okx",
        symbol="BTC_USDT",
        trade_id=number,
        trade_time=minute(at) + timedelta(seconds=7),
        price=1.0,
        source=source,
        receive_time=minute(at) + timedelta(seconds=8),
    )


def write(root, *trades):
    return write_batch(root, trades)


def test_minutes_between_rows_that_follow_each_other_are_stored_also_those_without_a_row(tmp_path):
    written = write(tmp_path, trade(1, 10), trade(2, 11, "rest"), trade(3, 20))

    assert written[DAY_0][KEY].ledger == DayLedger(received=span_mask(12, 19), healed=1 << 11)


def test_a_hole_in_the_numbers_leaves_the_minutes_that_it_touches_missing_until_it_is_filled(tmp_path):
    write(tmp_path, trade(1, 10), trade(2, 15), trade(5, 30), trade(6, 40))

    assert write(tmp_path) == {}
    before = scan_day(tmp_path, DAY_0)[1][KEY].ledger.stored
    healed = write(tmp_path, trade(3, 16, "rest"), trade(4, 29, "rest"))[DAY_0][KEY].ledger

    assert before == span_mask(11, 14) | span_mask(31, 39)
    assert healed.stored == span_mask(11, 39)
    assert healed.healed == 1 << 16 | 1 << 29


def test_a_run_over_midnight_makes_both_days_whole_in_either_order(tmp_path_factory):
    evening, morning = [trade(1, 1000), trade(2, 1430)], [trade(3, 1445), trade(4, 1500)]
    found = []
    for first, second in ((evening, morning), (morning, evening)):
        root = tmp_path_factory.mktemp("raw")
        write(root, *first)
        write(root, *second)
        found.append([scan_day(root, day)[0][KEY].ledger.stored for day in (DAY_0, NEXT)])

    assert found[0] == found[1] == [FULL_DAY & ~span_mask(0, 1000), span_mask(0, 59)]
