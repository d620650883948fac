"""What was handed on and never became durable is missing again."""

from datetime import UTC, datetime, timedelta

from services.collector.wanted import Universe
from shared.events import Ranking

NOW = datetime(2025, 4, 5, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def a_universe_with(symbol: str) -> Universe:
    universe = Universe(backfill_days=0)
    members = (symbol,)
    ranking = Ranking(
        exchange="okx", ranked_time=NOW, rank_by="raw", top_n=1, members=members, added=members, removed=()
    )
    universe.apply(ranking, NOW, {}, {})
    return universe


def test_minutes_that_are_not_on_disk_one_round_later_are_missing_again():
    universe = a_universe_with("BTC_USDT")
    wanted = universe.symbols["BTC_USDT"]
    for ahead in range(3):
        wanted.seen.add(NOW + ahead * MINUTE)
    universe.take_back_lost({})

    lost = universe.take_back_lost({NOW.date(): {"BTC_USDT": "720-720,722-722"}})

    assert lost == 1
    (gap,) = wanted.gaps(NOW + 3 * MINUTE + timedelta(seconds=30))
    assert (gap.begin, gap.minutes) == (NOW + MINUTE, 1)


def test_minutes_handed_on_since_the_last_round_are_left_time_to_be_stored():
    universe = a_universe_with("BTC_USDT")
    universe.take_back_lost({})
    universe.symbols["BTC_USDT"].seen.add(NOW)

    lost = universe.take_back_lost({NOW.date(): {}})

    assert lost == 0
    assert NOW in universe.symbols["BTC_USDT"].seen


def test_a_symbol_of_which_nothing_is_on_disk_is_asked_for_whole():
    universe = a_universe_with("BTC_USDT")
    universe.symbols["BTC_USDT"].seen.add(NOW)
    universe.take_back_lost({})

    lost = universe.take_back_lost({NOW.date(): {}})

    assert lost == 1
    assert NOW not in universe.symbols["BTC_USDT"].seen
