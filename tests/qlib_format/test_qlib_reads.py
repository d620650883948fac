"""The real pyqlib is the judge: it reads every value at its own time, in every frequency and span."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
qlib = pytest.importorskip("qlib", reason="pyqlib lives in the research environment: make test-qlib")

FIELDS = ["$open", "$high", "$low", "$close", "$volume", "$amount", "$vwap", "$funding_rate"]
MINUTES = {"1min": 1, "5min": 5, "15min": 15, "30min": 30, "60min": 60, "240min": 240, "day": 1440}
PEPE = "1000PEPE_USDT"
SYMBOLS = ["BTC_USDT", PEPE, "NEW_USDT", "GONE_USDT", "BTC_USD_UM"]
ODD = ["龙_USDT", "kPEPE_USDT", "ไทย_USDT", "ß_USDT", "A" * 40 + "_USDT", "CON"]
MINUTE = timedelta(minutes=1)


def stamp(instant):
    return pd.Timestamp(instant.astimezone(UTC).replace(tzinfo=None))


def read(data, symbols, fields, freq, **span):
    return data.features(symbols, fields, freq=freq, **span)


def present(series):
    """Return time → value of what is there, for one symbol."""
    values = series.droplevel("instrument").dropna()
    return {time.to_pydatetime().replace(tzinfo=UTC): value for time, value in values.items()}


def float32(value):
    return float(np.float32(value))


@pytest.mark.invariant(4)
def test_the_calendar_is_the_whole_grid(data, provider):
    """Invariant 4: 24 hours, seven days, gaps or not."""
    minutes = data.calendar(freq="1min")
    days = data.calendar(freq="day")

    assert list(minutes) == list(pd.date_range(stamp(provider.begin), stamp(provider.end - MINUTE), freq="min"))
    assert list(days) == list(pd.date_range(stamp(provider.begin), periods=3, freq="D"))


@pytest.mark.invariant(4)
@pytest.mark.parametrize("symbol", [*SYMBOLS, *ODD])
def test_every_minute_is_read_at_its_own_time_and_a_gap_is_nan(data, provider, symbol):
    """Invariant 4: nothing shifted, nothing filled, nothing lost; listing and delisting in the middle of a day."""
    frame = read(data, [symbol], FIELDS, "1min")

    expected = {time: float32(price) for time, price in provider.candles[symbol].items()}
    assert present(frame["$open"]) == expected
    for name, factor in {"$high": 1.25, "$low": 0.75, "$close": 1.125, "$amount": 2.0}.items():
        found = present(frame[name])
        assert list(found) == list(expected)
        for time, price in provider.candles[symbol].items():
            assert found[time] == float32(price * factor)
    assert set(present(frame["$volume"]).values()) == {2.0}
    assert present(frame["$vwap"]) == expected


def test_a_day_is_the_aggregate_of_its_minutes(data, provider):
    frame = read(data, ["BTC_USDT"], FIELDS, "day")

    for number in range(3):
        day = provider.begin + timedelta(days=number)
        prices = [
            price for time, price in provider.candles["BTC_USDT"].items() if day <= time < day + timedelta(days=1)
        ]
        row = frame.loc[("BTC_USDT", stamp(day))]
        assert row["$open"] == float32(prices[0])
        assert row["$high"] == float32(max(prices) * 1.25)
        assert row["$low"] == float32(min(prices) * 0.75)
        assert row["$close"] == float32(prices[-1] * 1.125)
        assert row["$volume"] == 2880.0
        assert row["$amount"] == pytest.approx(2 * sum(prices), rel=1e-6)


@pytest.mark.invariant(4)
@pytest.mark.parametrize("freq", MINUTES)
def test_every_frequency_has_the_whole_grid_and_a_future_except_minutes(data, provider, freq):
    """Invariant 4: Qlib would resample to a stock market's hours where a calendar is missing."""
    expected = pd.date_range(stamp(provider.begin), stamp(provider.end - MINUTE), freq=f"{MINUTES[freq]}min")

    assert list(data.calendar(freq=freq)) == list(expected)
    assert (len(data.calendar(freq=freq, future=True)) > len(expected)) == (freq != "1min")


@pytest.mark.invariant(4)
@pytest.mark.parametrize("freq", list(MINUTES)[1:])
@pytest.mark.parametrize("symbol", [*SYMBOLS, "龙_USDT", "CON"])
def test_bars_are_those_that_pandas_makes_of_whole_minutes(data, provider, freq, symbol):
    """Invariant 4: also where a bar of minutes lacks one: then it is not there."""
    minutes = pd.Series({stamp(time): price for time, price in provider.candles[symbol].items()})
    groups = minutes.resample(f"{MINUTES[freq]}min", origin=stamp(provider.begin))
    whole = groups.count() == MINUTES[freq]

    frame = read(data, [symbol], ["$open", "$close", "$volume", "$coverage"], freq)
    frame = frame.droplevel("instrument").reindex(whole.index)

    expected = pd.DataFrame({"$open": groups.first(), "$close": groups.last() * 1.125, "$volume": groups.count() * 2.0})
    expected = expected.where(whole, axis=0).astype("float32")
    pd.testing.assert_frame_equal(frame[list(expected)], expected, check_freq=False, check_names=False)
    seen = frame["$coverage"].fillna(0)
    assert np.array_equal(seen, (groups.count() / MINUTES[freq]).astype("float32"))


@pytest.mark.invariant(6)
@pytest.mark.parametrize("freq", ["5min", "60min", "240min", "day"])
def test_members_have_bars_that_opened_while_they_were_members_at_every_frequency(data, provider, freq):
    """Invariant 6: the file of the universe and the field of it agree."""
    listed = read(data, data.instruments("top50"), ["$in_universe"], freq)["$in_universe"].dropna()
    rows = read(data, data.instruments("all"), ["$in_universe", "$funding_rank"], freq).dropna()

    assert len(listed)
    assert set(listed) == {1.0}
    members = rows[rows["$in_universe"] == 1.0]
    assert set(listed.index) == set(members.index)
    assert (members["$funding_rank"] <= 2).all()


@pytest.mark.invariant(5)
@pytest.mark.parametrize("freq", ["1min", "15min", "60min", "day"])
def test_what_is_paid_in_all_bars_is_what_was_settled(data, provider, freq):
    """Invariant 5: each rate once, in the bar that it was settled in."""
    paid = present(read(data, ["BTC_USDT"], ["$funding_paid"], freq)["$funding_paid"])

    step = timedelta(minutes=MINUTES[freq])
    expected = dict.fromkeys(paid, 0.0)
    for number in (0, 480, 960, 1440, 2400, 3000):
        expected[provider.begin + number * MINUTE // step * step] += number / 1e6
    assert paid == pytest.approx(expected, rel=1e-6)


def test_days_of_a_symbol_are_those_on_which_it_traded_from_midnight_to_midnight(data, provider):
    """Nobody has said that the exchange has no candle of the rest."""
    frame = read(data, ["NEW_USDT", "GONE_USDT"], ["$close"], "day")["$close"].dropna()

    days = {symbol: [time.day for time in part.index.get_level_values(1)] for symbol, part in frame.groupby(level=0)}
    assert days == {"NEW_USDT": [7], "GONE_USDT": [5]}


@pytest.mark.invariant(5)
def test_the_funding_rate_of_a_bar_was_settled_before_its_close(data, provider):
    """Invariant 5."""
    found = present(read(data, ["BTC_USDT"], ["$funding_rate"], "1min")["$funding_rate"])

    settled = {provider.begin + number * MINUTE: number / 1e6 for number in (0, 480, 960, 1440, 2400, 3000)}
    for time in provider.candles["BTC_USDT"]:
        known = [rate for when, rate in settled.items() if when < time + MINUTE]
        assert found[time] == float32(known[-1])
    by_day = present(read(data, ["BTC_USDT"], ["$funding_rate"], "day")["$funding_rate"])
    assert by_day == {
        provider.begin: float32(960 / 1e6),
        provider.begin + timedelta(days=1): float32(2400 / 1e6),
        provider.begin + timedelta(days=2): float32(3000 / 1e6),
    }


@pytest.mark.invariant(6)
def test_members_have_bars_only_while_they_were_members(data, provider):
    """Invariant 6: several spans a symbol, minute by minute."""
    frame = read(data, data.instruments("top50"), ["$open"], "1min")["$open"].dropna()

    rankings = [(-5, {"BTC_USDT", "GONE_USDT"}), (480, {"BTC_USDT", PEPE}), (960, {PEPE, "GONE_USDT"})]
    rankings += [(1440, {"BTC_USDT", PEPE}), (2880, {"BTC_USDT", "NEW_USDT"})]
    expected = set()
    for symbol, candles in provider.candles.items():
        for time in candles:
            number = (time - provider.begin) // MINUTE
            members = [members for at, members in rankings if at <= number][-1]
            if symbol in members:
                expected.add((symbol, stamp(time)))
    assert set(frame.index) == expected


def test_all_lists_every_symbol_delisted_ones_too(data, provider):
    listed = data.list_instruments(data.instruments("all"), freq="1min", as_list=True)

    assert sorted(listed) == sorted(provider.candles)


@pytest.mark.parametrize("freq", ["60min", "day"])
def test_a_market_with_odd_names_is_read_whole_each_under_its_own_name(data, provider, freq):
    """One name that Qlib cannot read would break the query for all of them."""
    frame = read(data, data.instruments("all"), ["$coverage", "Mean($close, 2)"], freq)

    assert set(frame.index.get_level_values("instrument")) == set(provider.candles) >= set(ODD)
    assert frame["$coverage"].groupby("instrument").max().gt(0).all()


def test_a_rolling_window_of_a_member_sees_what_was_before_its_span(data, provider):
    """Membership hides bars; it does not cut the history that an expression looks back on."""
    frame = read(data, data.instruments("top50"), ["Ref($close, 60)"], "1min")
    first = stamp(provider.begin + 2880 * MINUTE)

    assert frame.loc[("NEW_USDT", first)].iloc[0] == float32(3.0 * (1 + 2820 / 10_000) * 1.125)


def test_expressions_and_spans_work_on_odd_names(data, provider):
    begin, end = provider.begin + 430 * MINUTE, provider.begin + 439 * MINUTE

    frame = read(data, [PEPE], ["Mean($close, 3)"], "1min", start_time=stamp(begin), end_time=stamp(end))

    assert list(frame.index.get_level_values("datetime")) == list(pd.date_range(stamp(begin), stamp(end), freq="min"))
    assert not frame.isna().any().any()


def test_the_future_calendar_does_not_change_what_is_read(data, provider):
    """It is there for the backtest, which looks one bar past the last."""
    future = data.calendar(freq="day", future=True)
    assert len(future) > 3
    before = read(data, data.instruments("all"), FIELDS, "day")

    hidden = provider.folder / "calendars" / "day_future.txt"
    aside = provider.folder / "aside"
    hidden.rename(aside)
    try:
        from qlib.data.cache import H

        H.clear()
        after = read(data, data.instruments("all"), FIELDS, "day")
    finally:
        aside.rename(hidden)
        H.clear()

    pd.testing.assert_frame_equal(before, after)
    assert before.index.get_level_values("datetime").max() == pd.Timestamp(datetime(2025, 4, 7))  # noqa: DTZ001 - as Qlib


def test_lower_case_names_find_the_same_values(data, provider):
    upper, lower = (read(data, [name], ["$close"], "day")["$close"].to_list() for name in ("BTC_USDT", "btc_usdt"))

    assert upper == lower
