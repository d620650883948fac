from datetime import timedelta

from services.writer.watermark import PATIENCE, written_until
from tests.support.builders import minute

MEMBERS = frozenset({"BTC_USDT", "ETH_USDT"})


def test_a_minute_is_stored_until_its_end():
    assert written_until({"BTC_USDT": minute(5)}, MEMBERS) == minute(6)


def test_the_slowest_member_decides():
    assert written_until({"BTC_USDT": minute(5), "ETH_USDT": minute(3)}, MEMBERS) == minute(4)


def test_others_do_not_count():
    assert written_until({"BTC_USDT": minute(5), "OLD_USDT": minute(0)}, MEMBERS) == minute(6)


def test_without_a_universe_all_count():
    assert written_until({"BTC_USDT": minute(5), "OLD_USDT": minute(0)}, frozenset()) == minute(1)


def test_a_halted_member_does_not_hold_up_the_others():
    long_ago = minute(500) - PATIENCE - timedelta(minutes=1)

    assert written_until({"BTC_USDT": minute(500), "ETH_USDT": long_ago}, MEMBERS) == minute(501)


def test_before_the_first_candle_nothing_is_stored():
    assert written_until({}, MEMBERS) is None
    assert written_until({"OLD_USDT": minute(5)}, MEMBERS) is None
