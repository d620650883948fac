"""What a run is, once it is planned and loaded: nothing has been written then."""

from services.converter.convert import convert
from services.converter.features.fields import BarRecipe
from services.converter.memory import Memory
from services.converter.stages.load import load
from services.converter.stages.plan import plan
from services.converter.stages.run import Goal
from services.converter.versions.changing import changing
from shared.grid import DAY
from shared.storage.layout import Partition
from tests.support.builders import DAY_0, a_funding_rate, minute, store
from tests.support.conversions import some_minutes
from tests.support.provider import tree

NEXT = DAY_0 + DAY


def planned(raw, qlib, until, **options):
    goal = {"latest": None, "recipe": BarRecipe(), "rebuild": False, "history": False, "every_file": False} | options
    with changing(qlib) as versions:
        return plan(raw, versions, Goal(until=until, **goal), Memory(is_kept=False))


def test_a_plan_names_the_days_that_changed_and_writes_no_bar(raw, qlib):
    store(raw, some_minutes("BTC_USDT", range(1440)) + some_minutes("ETH_USDT", range(1440)))
    convert(raw, qlib, until=minute(1440))
    store(raw, some_minutes("BTC_USDT", range(1440, 1500)))
    before = tree(qlib)

    run = planned(raw, qlib, minute(1500))

    assert run.dirty == {"BTC_USDT": [NEXT]}
    assert run.build.span == (minute(0), minute(1500))
    assert (run.left, run.left_out, run.later) == ({}, 0, [])
    assert tree(qlib) == before


def test_a_day_before_the_calendar_is_left_out_of_the_plan_and_counted(raw, qlib):
    store(raw, some_minutes("BTC_USDT", range(1440, 2880)))
    convert(raw, qlib, until=minute(2880))
    store(raw, some_minutes("BTC_USDT", range(1440)))

    run = planned(raw, qlib, minute(2880))

    assert (run.dirty, run.left_out) == ({}, 1)


def test_a_day_after_the_latest_time_is_left_out_of_the_plan_and_named(raw, qlib):
    store(raw, some_minutes("BTC_USDT", range(2880)))

    run = planned(raw, qlib, None, latest=minute(1000))

    assert run.dirty == {"BTC_USDT": [DAY_0]}
    assert run.later == [Partition("kline_1m", NEXT, "BTC_USDT")]
    assert run.build.end == minute(1000)


def test_what_is_loaded_holds_for_each_symbol_its_rates_and_the_days_that_lack_something(raw, qlib, tmp_path):
    store(raw, some_minutes("BTC_USDT", range(2880)) + some_minutes("ETH_USDT", range(1440)))
    store(raw, [a_funding_rate("BTC_USDT", minute(480)), a_funding_rate("BTC_USDT", minute(1440 + 480))])
    damaged = Partition("funding", NEXT).path(raw)
    damaged.write_bytes(b"torn")

    bitcoin, ether = load(planned(raw, qlib, None), tmp_path / "predictions").work

    assert len(bitcoin.known.settlements.times) == 1
    assert len(ether.known.settlements.times) == 0
    assert bitcoin.days == [DAY_0, NEXT]
    assert str(damaged) in bitcoin.unknown[NEXT]
    assert DAY_0 not in bitcoin.unknown
