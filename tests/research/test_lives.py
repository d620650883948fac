"""Positions, prices, payments, features and labels end with the life of a symbol, and no end is known before it."""

import pytest

pytest.importorskip("qlib", reason="pyqlib lives in the research environment: make test-qlib")

import shutil
from datetime import timedelta

import numpy as np
import pandas as pd
import perps
from hypothesis import given
from hypothesis import strategies as st
from perps.handlers import FundingAlpha158
from perps.lives import delistings, silences
from qlib.data import D

from tests.research.provider import Symbol, bar, cut_provider, f32, write_delisted, write_provider
from tests.research.trading import run

NAN = float("nan")
COSTS = {"taker_fee": 0.001, "slippage": 0.1}


def exactly(value):
    return pytest.approx(value, rel=1e-9, abs=1e-12)


@pytest.fixture
def dataset(tmp_path):
    """Write symbols and delistings (symbol, last minute), and set Qlib up for them."""

    def make(freq="60min", delisted=(), bars=None, **symbols):
        count = bars or max(symbol.first + len(symbol.close) for symbol in symbols.values())
        folder = write_provider(tmp_path / "qlib_data", freq, symbols, count)
        write_delisted(folder, *delisted)
        return perps.init(folder, experiments=tmp_path / "experiments")

    return make


def last_minute(number, freq="60min"):
    """Return the last minute before the bar with a number opens."""
    return bar(number, freq) - timedelta(minutes=1)


# --- delisted


def test_what_is_delisted_is_settled_at_its_last_price_at_no_cost(dataset):
    dataset(
        delisted=[("GONE", last_minute(3))],
        GONE=Symbol([10, 12, 8, NAN], 0, {"funding_paid": [0, 0, 0.01, 0.5]}),
        STAYS=Symbol([100] * 6),
    )

    result = run({0: [("GONE", -5.0), ("STAYS", 1.0)], 4: [("GONE", 1.0)]}, (0, 5), **COSTS)

    ledger, gone = result.ledger, result.by_symbol.xs("GONE", level="instrument")
    assert ledger["delistings"].tolist() == [0, 0, 0, 1, 0, 0]
    assert ledger["unfollowed"].sum() == 0
    assert gone["fee"].tolist() == exactly([5 * 9 * 0.001, 0, 0, 0])
    assert gone["slippage"].tolist() == exactly([5 * 1, 0, 0, 0])
    assert gone["turnover"].tolist() == exactly([5 * 9, 0, 0, 5 * 8])
    # The rate of the bar after the end, whatever it is, is not paid.
    assert gone["funding"].tolist() == exactly([0, 0, 5 * 12 * f32(0.01), 0])
    assert result.positions[pd.Timestamp(bar(3))].held() == ["STAYS"]
    expected = 1000 + 5 * 9 * 0.999 - 5 * 8 + 5 * 12 * f32(0.01) - 110 * 1.001 + 100
    assert ledger["equity"].iloc[-1] == exactly(expected)


def test_an_end_within_a_bar_or_between_two_closes_in_the_next_one(dataset):
    middle = bar(2) + timedelta(minutes=29)
    dataset(
        delisted=[("WITHIN", middle), ("LATER", bar(4))],
        WITHIN=Symbol([10] * 3),
        LATER=Symbol([10] * 3),
        STAYS=Symbol([1] * 7),
    )

    result = run({0: [("WITHIN", 1.0), ("LATER", 1.0)]}, (0, 6))

    assert result.ledger["delistings"].tolist() == [0, 0, 0, 1, 0, 1, 0]


def test_what_ends_with_the_dataset_is_still_held_at_its_last_price(dataset):
    dataset(delisted=[("A", last_minute(3))], A=Symbol([100, 110, 120]))

    result = run({0: [("A", 1.0)]}, (0, 2))

    assert result.ledger[["delistings", "unfollowed"]].sum().sum() == 0
    assert result.positions[pd.Timestamp(bar(2))].held() == ["A"]
    assert result.ledger["equity"].iloc[-1] == exactly(1000 + 20)


@pytest.mark.parametrize("gap", [0, 3], ids=["at once", "after a gap"])
def test_a_name_that_comes_back_is_another_position_at_its_own_price_and_funding(dataset, gap):
    again = 3 + gap
    hole = [NAN] * gap
    fields = {"open": [10, 10, 10, *hole, 4900, 5000, 5100], "funding_paid": [0.0] * 3 + hole + [0.02, 0.02, 0.0]}
    dataset(
        delisted=[("A", last_minute(3))],
        A=Symbol([10, 10, 11, *hole, 5000, 5100, 5200], 0, fields),
        B=Symbol([1] * (again + 3)),
    )
    # The order of the bar at which the name comes back, to close what is closed already, would open a short.
    orders = {0: [("A", 2.0)], 3: [("A", -2.0)], again + 1: [("A", 0.01)]}

    result = run(orders, (0, again + 2), account=1000.0)

    ledger = result.ledger
    assert ledger["delistings"].tolist() == [0, 0, 0, 1] + [0] * (again - 1)
    assert ledger["funding"].sum() == 0  # bought after the second settlement of the new life
    assert ledger["equity"].iloc[again] == exactly(1000 + 2 * (11 - 10))
    assert ledger["equity"].iloc[-1] == exactly(1002 + 0.01 * (5200 - 5000))


def test_a_new_life_without_a_delisting_ends_positions_by_its_number(dataset):
    life = [1, 1, NAN, NAN, 2, 2, 2]
    dataset(
        A=Symbol([10, 10, 11, NAN, 5000, 5100, 5200], 0, {"life": life, "funding_paid": [0, 0, 0, 0, 0.01, 0, 0]}),
        B=Symbol([1] * 7),
    )

    result = run({0: [("A", -2.0)], 4: [("A", 2.0)]}, (0, 6), **COSTS)

    ledger = result.ledger
    assert ledger["delistings"].tolist() == [0, 0, 0, 0, 1, 0, 0]
    assert ledger["equity"].iloc[-1] == exactly(1000 + 2 * 9 * 0.999 - 2 * 11)
    assert ledger["funding"].sum() == 0


def test_a_number_of_life_that_appears_or_lapses_ends_nothing(dataset):
    dataset(A=Symbol([10] * 5, 0, {"life": [NAN, NAN, 7, NAN, 7]}))

    assert run({0: [("A", 1.0)]}, (0, 4)).ledger["delistings"].sum() == 0


def test_nothing_is_ordered_by_a_price_of_the_life_before(dataset):
    life = [1, 1, 2, 2]
    dataset(A=Symbol([10, 11, 5000, 5100], 0, {"life": life}))
    exchange = perps.PerpExchange("60min")
    exchange.cover(pd.Timestamp(bar(0)), pd.Timestamp(bar(3)), "60min")

    known = [exchange.last_close(pd.Timestamp(bar(number)), "A") for number in range(4)]

    assert known == [None, 10, None, 5000]


@pytest.fixture
def delisted_in_the_day(tmp_path):
    """Three days of hours; A ends at 08:00 of the second one, at 130; the day has no prices, as it is not whole."""
    hours = np.arange(32)
    close = 100.0 + hours
    close[31] = 130.0
    paid = np.where(hours % 8 == 0, 0.001, 0.0)
    after = [NAN] * 16
    funding = [*paid, *[0.5, *[NAN] * 7] * 2]
    rest = {"A": Symbol([*close, *after], 0, {"open": [*close, *after], "funding_paid": funding})}
    folder = tmp_path / "qlib_data"
    write_provider(folder, "60min", {**rest, "B": Symbol([1] * 72)}, 72)
    days = {"A": Symbol([close[23], NAN], 0, {"open": [close[0], NAN], "funding_paid": [0.003, 1.001]})}
    write_provider(folder, "day", {**days, "B": Symbol([1] * 3)}, 3)
    write_delisted(folder, ("A", bar(32) - timedelta(minutes=1)))
    perps.init(folder, experiments=tmp_path / "experiments")
    return f32(0.001)


def test_a_day_settles_at_the_last_hour_and_pays_nothing_after_it(delisted_in_the_day):
    rate = delisted_in_the_day

    result = run({0: [("A", 1.0)]}, (0, 2), freq="day", **COSTS)

    assert result.ledger["delistings"].tolist() == [0, 0, 1]
    assert result.ledger["funding"].tolist() == exactly([-(107 + 115) * rate, -123 * rate, 0])
    assert result.ledger["price"].tolist() == exactly([123 - 100, 0, 130 - 123])
    assert result.ledger["fee"].tolist() == exactly([110 * 0.001, 0, 0])


# --- no longer followed


def test_what_is_no_longer_followed_is_sold_with_costs_once_it_was_silent_for_too_long(dataset):
    dataset(A=Symbol([10, 12, 8]), B=Symbol([1] * 9))

    result = run({0: [("A", 5.0)]}, (0, 8), patience="3h", **COSTS)

    ledger = result.ledger
    # Silent in bars 3, 4 and 5, which are three hours; bar 6 makes it longer.
    assert ledger["unfollowed"].tolist() == [0, 0, 0, 0, 0, 0, 1, 0, 0]
    assert ledger["delistings"].sum() == 0
    assert ledger["slippage"].tolist() == exactly([5 * 1, 0, 0, 0, 0, 0, 5 * 0.8, 0, 0])
    assert ledger["fee"].tolist() == exactly([5 * 11 * 0.001, 0, 0, 0, 0, 0, 5 * 7.2 * 0.001, 0, 0])
    assert ledger["equity"].iloc[5] == exactly(1000 - 55 - 0.055 + 40)
    assert ledger["equity"].iloc[-1] == exactly(1000 - 55 - 0.055 + 36 * 0.999)


def test_a_backtest_says_which_positions_were_closed_as_no_longer_followed(dataset):
    dataset(A=Symbol([10, 12, 8]), B=Symbol([1] * 9))

    run_short = run({0: [("A", 5.0)]}, (0, 4), patience="3h")
    run_long = run({0: [("A", 5.0)]}, (0, 8), patience="3h")

    assert [note.split(":")[0] for note in run_short.notes] == ["5 bars are 0.2 days"]
    assert "1 positions were closed at the last known price" in run_long.notes[1]
    assert run_long.notes[1].endswith("A (2026-01-01 06:00:00)")


def test_a_short_is_bought_back_at_a_worse_price(dataset):
    dataset(A=Symbol([10, 10, 8]), B=Symbol([1] * 5))

    ledger = run({0: [("A", -5.0)]}, (0, 4), patience="1h", slippage=0.1).ledger

    assert ledger["equity"].iloc[-1] == exactly(1000 + 5 * 9 - 5 * 8.8)


def test_silence_of_a_day_is_waited_out_by_default(dataset):
    close = [10.0, *[NAN] * 24, 12.0, *[NAN] * 25, 13.0]
    dataset(A=Symbol(close), B=Symbol([1] * len(close)))

    ledger = run({0: [("A", 5.0)]}, (0, len(close) - 1)).ledger

    assert np.flatnonzero(ledger["unfollowed"]).tolist() == [50]


@pytest.mark.parametrize("field", ["funding_paid", "coverage"])
def test_who_is_paid_or_traded_in_part_is_followed_though_without_a_price(dataset, field):
    close = [10.0, *[NAN] * 6]
    given = {"funding_paid": [0.0] + [NAN] * 6} | {field: [0.0] + [0.001] * 6}
    dataset(A=Symbol(close, 0, given), B=Symbol([1] * 7))

    assert run({0: [("A", 5.0)]}, (0, 6), patience="2h").ledger["unfollowed"].sum() == 0


@given(seen=st.lists(st.booleans(), min_size=1, max_size=12), hours=st.integers(1, 4))
def test_a_silence_is_counted_from_the_end_of_the_last_bar_that_was_seen(seen, hours):
    bars = pd.date_range("2026-01-01", periods=len(seen), freq="h")

    silent = silences(np.array(seen)[:, None], bars, pd.Timedelta("1h"), pd.Timedelta(f"{hours}h"))[:, 0]

    for row in range(len(seen)):
        expected = row >= hours and not any(seen[row - hours : row + 1])
        assert silent[row] == expected


def test_what_was_never_seen_is_silent_since_the_first_bar():
    bars = pd.date_range("2026-01-01", periods=5, freq="h")
    seen = np.array([[0, 1, 1], [0, 0, 1], [0, 0, 0], [0, 1, 0], [0, 0, 0]], dtype=bool)

    silent = silences(seen, bars, pd.Timedelta("1h"), pd.Timedelta("1h"))

    assert silent[:, 0].tolist() == [False, True, True, True, True]
    assert silent[:, 1].tolist() == [False, False, True, False, False]
    assert silent[:, 2].tolist() == [False, False, False, True, True]


# --- the future is not known


@pytest.mark.parametrize("freq", ["60min", "day"])
def test_a_backtest_does_not_change_with_the_age_of_the_dataset(tmp_path, freq):
    """One symbol each: delisted, no longer followed, silent for long and back, delisted and back, given away."""
    random = np.random.default_rng(7)
    count, until = 400, 200

    def drawn(*holes, **fields):
        close = 100 * np.exp(np.cumsum(0.01 * random.standard_normal(count)))
        paid = np.where(np.arange(count) % 8 == 0, 0.001, 0.0)
        for hole in holes:
            close[hole] = NAN
            paid[hole] = 0
        return Symbol(close, 0, {"funding_paid": paid} | fields)

    symbols = {
        "DELISTED": drawn(slice(150, None)),
        "DROPPED": drawn(slice(140, None)),
        "SILENT": drawn(slice(120, 300)),
        "RETURNED": drawn(slice(160, 250)),
        "PAUSED": drawn(slice(until - 10, until + 5)),
        "GIVEN": drawn(life=np.where(np.arange(count) < 180, 1.0, 2.0)),
        "PLAIN": drawn(),
    }
    folder = write_provider(tmp_path / "whole", freq, symbols, count)
    ends = {"DELISTED": 150, "RETURNED": 160, "PLAIN": 390}
    lives = [(symbol, last_minute(end, freq)) for symbol, end in ends.items()]
    write_delisted(folder, *lives)
    orders = {n: [(name, 2 * random.standard_normal()) for name in symbols] for n in range(0, until, 5)}
    settings = {"account": 10_000.0, "taker_fee": 0.001, "slippage": 0.001, "leverage": 20.0}
    accounts = {}
    for age in (until + 1, until + 2, until + 60, count):
        young = shutil.copytree(folder, tmp_path / f"{age}")
        cut_provider(young, freq, age)
        write_delisted(young, *[(symbol, end) for symbol, end in lives if end < bar(age, freq)])
        perps.init(young, experiments=tmp_path / "experiments")
        accounts[age] = run(orders, (0, until), freq=freq, **settings).ledger

    whole = accounts[count]
    # A pause of some hours is waited out, one of some days is not: whoever waits does not know how long.
    assert whole[["delistings", "unfollowed"]].sum().tolist() == [3, 2 if freq == "60min" else 3]
    for account in accounts.values():
        pd.testing.assert_frame_equal(account, whole, check_exact=True)


# --- the file


def test_the_ends_are_those_of_the_market_file(dataset):
    dataset(delisted=[("A", bar(1)), ("A", bar(5)), ("B", last_minute(90))], A=Symbol([1] * 9), B=Symbol([1] * 9))

    assert delistings("60min") == {"A": [bar(1), bar(5)], "B": [last_minute(90)]}


@pytest.mark.parametrize("empty", [True, False], ids=["empty", "missing"])
def test_without_rows_nothing_is_known_to_be_delisted_and_nothing_is_written(dataset, empty):
    folder = dataset(A=Symbol([10, 12, 8]), B=Symbol([1] * 5))
    file = folder / "instruments" / "delisted.txt"
    if not empty:
        file.unlink()

    assert delistings("60min") == {}
    assert run({0: [("A", 5.0)]}, (0, 4)).ledger["delistings"].sum() == 0
    assert file.exists() == empty


# --- features and labels


def features(*expressions, symbols=("A",)):
    return D.features(list(symbols), list(expressions), freq="60min").astype("float64")


@pytest.mark.parametrize("kind", ["delisted", "life"])
def test_windows_and_references_stay_within_a_life(dataset, kind):
    close = np.arange(1.0, 11)
    close[5:] *= 1000
    fields = {"life": [1.0] * 5 + [2.0] * 5} if kind == "life" else {}
    dataset(delisted=[("A", last_minute(5))] if kind == "delisted" else [], A=Symbol(close, 0, fields))

    frame = features("WithinLife(Ref($close, -2)/Ref($close, -1)-1)", "WithinLife(Mean($close, 3))", "$close")

    label, mean, price = (frame[name].to_numpy() for name in frame)
    expected = [3 / 2, 4 / 3, 5 / 4, NAN, NAN, 8 / 7, 9 / 8, 10 / 9, NAN, NAN]
    np.testing.assert_allclose(label, np.array(expected) - 1, rtol=1e-5)
    np.testing.assert_allclose(mean, [1, 1.5, 2, 3, 4, 6000, 6500, 7000, 8000, 9000], rtol=1e-6)
    assert price[5] == 6000


def test_a_symbol_without_ends_has_the_expression_itself(dataset):
    close = 100 + np.random.default_rng(1).normal(0, 1, 60).cumsum()
    dataset(delisted=[("A", last_minute(30))], A=Symbol(close), B=Symbol(close))
    plain = "Std($close, 7)/Ref($close, 3)+Ref($open, -2)"

    frame = features(plain, f"WithinLife({plain})", symbols=["A", "B"])

    b = frame.xs("B", level="instrument")
    pd.testing.assert_series_equal(b.iloc[:, 0], b.iloc[:, 1], check_names=False, check_exact=True)
    a = frame.xs("A", level="instrument")
    assert not a.iloc[:, 0].equals(a.iloc[:, 1])


def test_every_part_of_a_range_is_what_the_whole_has(dataset):
    close = 100 + np.random.default_rng(1).normal(0, 1, 60).cumsum()
    dataset(delisted=[("A", last_minute(20)), ("A", last_minute(40))], A=Symbol(close), B=Symbol(close))
    expression = "WithinLife(Std($close, 9)+Ref($close, -2))"

    whole = features(expression)
    for first, last in ((18, 45), (20, 39), (41, 59), (0, 19)):
        part = D.features(["A"], [expression], bar(first), bar(last), freq="60min").astype("float64")
        pd.testing.assert_frame_equal(part, whole.loc[part.index], rtol=1e-5)
        assert len(part) == last - first + 1


def test_a_handlers_features_and_labels_know_nothing_of_another_life(tmp_path):
    """A second life has what a symbol has that is listed then; a first one, what a symbol has that ends then."""
    random, count, end = np.random.default_rng(4), 90, 50
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.01, count)))
    more = {"funding_interval": [8.0] * count, "coverage": [1.0] * count, "volume": random.uniform(1, 9, count)}
    more["life"] = [4.0] * end + [5.0] * (count - end)

    def part(first, stop):
        opens = np.concatenate([close[:1], close[:-1]])[first:stop]
        return Symbol(
            close[first:stop], first, {name: values[first:stop] for name, values in more.items()} | {"open": opens}
        )

    symbols = {"TWICE": part(0, count), "ENDED": part(0, end), "LISTED": part(end, count), "OTHER": Symbol(close[::-1])}
    perps.init(write_provider(tmp_path / "qlib_data", "60min", symbols, count), experiments=tmp_path / "experiments")
    given = (["Ref($close, -8)/Ref($close, -1)-1"], ["GIVEN"])

    handlers = [FundingAlpha158(freq="60min", horizon=3), FundingAlpha158(freq="60min", label=given)]

    frame = pd.concat([one.fetch(col_set=["feature", "label"], data_key="raw") for one in handlers], axis=1)
    twice, ended, listed = (frame.xs(name, level="instrument") for name in ("TWICE", "ENDED", "LISTED"))
    pd.testing.assert_frame_equal(twice, pd.concat([ended, listed]))
    assert frame["label"].xs("ENDED", level="instrument").notna().sum().tolist() == [end - 4, end - 8]
