"""A judge that sees nothing is worse than none: mistakes of every kind are planted, and found."""

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from proofs.judges.bins import FREQUENCIES, bin_path, read_bin
from proofs.judges.lookahead import cut_raw, instants, judge_cut
from proofs.judges.recompute import FIELDS, Options, Raw, facts_of, recompute
from proofs.judges.tally import compare
from proofs.judges.values import judge_values
from proofs.rig import synthetic_year
from proofs.rig.conversion import ROOT
from proofs.rig.synthetic_year import Market
from proofs.units import DAY_MS, MINUTE_MS
from tests.support.builders import a_definition, store
from tests.support.field_rows import UNJUDGED

MARKET = Market(symbols=3, days=3, seed=5, members=2)
SYMBOL = "S000_USDT"


# --- A dataset as it should be, written here: the converter is judged in the last test


def text_of(milliseconds: int, frequency: str) -> str:
    instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(milliseconds))
    return f"{instant:%Y-%m-%d}" if frequency == "day" else f"{instant:%Y-%m-%d %H:%M:%S}"


def write_bin(path: Path, first: int, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.concatenate([[first], values]).astype("<f4").tofile(path)


def write_dataset(data: Path, qlib: Path, until: int, change=lambda _, bars: bars) -> None:
    """Write what the definition says of a raw folder; `change` may spoil the bars of (symbol, frequency)."""
    raw = Raw(data)
    (qlib / "calendars").mkdir(parents=True)
    (qlib / "instruments").mkdir()
    for frequency, minutes in FREQUENCIES.items():
        step = minutes * MINUTE_MS
        grid = list(range(raw.first_day, until - step + 1, step))
        beyond = [*grid, *(grid[-1] + step * n for n in range(1, 4))] if grid else []
        for name, opens in ((frequency, grid), (f"{frequency}_future", beyond if frequency != "1min" else [])):
            lines = "".join(text_of(opened, frequency) + "\n" for opened in opens)
            if lines:
                (qlib / "calendars" / f"{name}.txt").write_text(lines)
    rows = []
    for symbol in raw.candle_files:
        facts = facts_of(raw, symbol, until, Options())
        if not facts.candles.empty:
            first, last = (int(facts.candles.index[place]) for place in (0, -1))
            inner = [birth for birth in facts.births.tolist() if first < birth <= last]
            begins = [first // DAY_MS * DAY_MS, *inner]
            ends = [*(text_of(begin - 1000, "") for begin in inner), "2099-12-31 23:59:59"]
            rows += [f"{symbol}\t{text_of(begin, '')}\t{end}\n" for begin, end in zip(begins, ends, strict=True)]
        for frequency, minutes in FREQUENCIES.items():
            bars = recompute(facts, frequency)
            if bars is not None:
                bars = change((symbol, frequency), bars)
                first = int(bars.index[0] - raw.first_day) // (minutes * MINUTE_MS)
                for field in FIELDS:
                    write_bin(bin_path(qlib, symbol, field, frequency), first, bars[field].to_numpy(np.float64))
    (qlib / "instruments" / "all.txt").write_text("".join(rows))
    (qlib / "instruments" / "top50.txt").write_text("".join(member_rows(raw, until)))


def member_rows(raw: Raw, until: int):
    """Yield a row for every ranking that makes a symbol a member."""
    for symbol, places in raw.rankings.items():
        for place in places[places["member"]].itertuples():
            later = raw.ranked_times[raw.ranked_times > place.ranked_time]
            last = int(later[0]) - 1000 if len(later) else until + DAY_MS
            yield f"{symbol}\t{text_of(-(-place.ranked_time // 1000) * 1000, '')}\t{text_of(last, '')}\n"


def some_definitions(first_day: int):
    """Say of the symbols that one goes on, one is redenominated, and one is listed again in the midst of an hour."""

    def at(minutes: int) -> datetime:
        return datetime.fromtimestamp(first_day / 1000, UTC) + timedelta(minutes=minutes)

    goes_on, redenominated, again = (f"S{number:03}_USDT" for number in range(3))
    return [
        a_definition(goes_on, at(-10), list_time=at(-9999)),
        a_definition(goes_on, at(700), list_time=at(-9999), contract_value=0.1),
        a_definition(redenominated, at(-10), list_time=None),
        a_definition(redenominated, at(1930), "rebase", list_time=None),
        a_definition(redenominated, at(1990), list_time=None, contract_value=10.0),
        a_definition(again, at(-10), list_time=at(-9999)),
        a_definition(again, at(1900), "expired", list_time=at(-9999), end_time=at(1890)),
        a_definition(again, at(2000), "preopen", list_time=at(2100), contract_value=None),
        a_definition(again, at(2150), list_time=at(2165)),
        a_definition(again, at(2166), list_time=at(2165)),
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a raw folder and the dataset that it should become."""
    folder = tmp_path_factory.mktemp("made")
    for _ in synthetic_year.make(MARKET, folder / "okx_data"):
        pass
    store(folder / "okx_data", some_definitions(Raw(folder / "okx_data").first_day))
    write_dataset(folder / "okx_data", folder / "qlib", end_of(Raw(folder / "okx_data")))
    return folder


def end_of(raw: Raw) -> int:
    return max(int(raw.candles(symbol).index[-1]) for symbol in raw.candle_files) + MINUTE_MS


@pytest.fixture
def dataset(made, tmp_path):
    """Return a copy of the dataset, to be spoilt."""
    shutil.copytree(made / "qlib", tmp_path / "qlib")
    return tmp_path / "qlib"


@pytest.fixture(scope="module")
def raw(made):
    return Raw(made / "okx_data")


def spoil(dataset: Path, field: str, frequency: str, change, symbol: str = SYMBOL) -> None:
    """Change the values of a bin."""
    stored = read_bin(dataset, symbol, field, frequency)
    write_bin(bin_path(dataset, symbol, field, frequency), stored.first, change(stored.values.copy()))


def filled(values: np.ndarray) -> np.ndarray:
    """Put the value before it into every hole."""
    places = np.maximum.accumulate(np.where(np.isnan(values), 0, np.arange(len(values))))
    return values[places]


def with_one(place_of, value_of):
    """Return a change of one value: the first at which `place_of` holds."""

    def change(values: np.ndarray) -> np.ndarray:
        place = int(np.flatnonzero(place_of(values))[5])
        values[place] = value_of(values[place])
        return values

    return change


# --- Values


def test_a_dataset_as_it_should_be_is_clean_and_every_field_was_compared(raw, dataset):
    found = judge_values(raw, dataset, Options())

    assert found.clean, found.problems
    assert {key for key, tally in found.tallies.items() if tally.compared} >= {
        (frequency, field) for frequency in FREQUENCIES if frequency != "day" for field in FIELDS
    }
    assert found.total.empty > 0


MISTAKES = {
    "shifted by one": (lambda values: np.roll(values, 1), "close", "60min"),
    "of the bar after": (lambda values: np.roll(values, -1), "funding_rate", "5min"),
    "one float32 step": (with_one(np.isfinite, lambda value: np.nextafter(value, np.float32(np.inf))), "high", "5min"),
    "a wrong sum": (with_one(lambda values: values > 0, lambda value: value * 1.000001), "volume", "15min"),
    "a lost value": (with_one(np.isfinite, lambda _: np.nan), "vwap", "240min"),
    "a filled hole": (filled, "close", "1min"),
    "an invented state": (filled, "coverage", "1min"),
    "a zero for nothing": (np.nan_to_num, "funding_predicted", "30min"),
    "an unpaid settlement": (with_one(lambda values: values != 0, lambda _: 0.0), "funding_paid", "1min"),
    "a member for one bar more": (with_one(lambda values: values == 0, lambda _: 1.0), "in_universe", "60min"),
    "a rank off by one": (with_one(np.isfinite, lambda value: value + 1), "funding_rank", "60min"),
    "a minute late": (with_one(np.isfinite, lambda value: value + 1), "minutes_to_funding", "5min"),
}


SINGLE = (
    "one float32 step",
    "a wrong sum",
    "a lost value",
    "an unpaid settlement",
    "a rank off by one",
    "a minute late",
)
"""Those of one value only."""


def test_planted_mistakes_are_found_each_where_it_is_and_nowhere_else(raw, dataset):
    for change, field, frequency in MISTAKES.values():
        spoil(dataset, field, frequency, change)

    found = judge_values(raw, dataset, Options())

    wrong = {key: tally for key, tally in found.tallies.items() if tally.faults}
    assert set(wrong) == {(frequency, field) for _, field, frequency in MISTAKES.values()}
    for (_, field), tally in wrong.items():
        assert tally.first.startswith(f"{SYMBOL} {field} 2025-01-0")
    single = [
        wrong[frequency, field].faults for mistake, (_, field, frequency) in MISTAKES.items() if mistake in SINGLE
    ]
    assert single == [1] * len(SINGLE)


def test_a_sum_may_differ_by_one_float32_step_and_a_price_may_not():
    one = np.array([3.0, np.nan, 5.0], np.float32)
    next_to_it = np.nextafter(one, np.float32(np.inf))

    assert compare(one, next_to_it, str, steps=1).last_bit == 2
    assert compare(one, np.nextafter(next_to_it, np.float32(np.inf)), str, steps=1).different == 2
    assert compare(one, next_to_it, str).different == 2


def test_a_bin_that_begins_elsewhere_is_found(raw, dataset):
    stored = read_bin(dataset, SYMBOL, "open", "60min")
    write_bin(bin_path(dataset, SYMBOL, "open", "60min"), stored.first + 1, stored.values)

    found = judge_values(raw, dataset, Options())

    assert found.tallies["60min", "open"].different > 0
    assert "positions" in found.problems[0]


def test_a_bin_that_is_not_there_is_found(raw, dataset):
    bin_path(dataset, SYMBOL, "amount", "day").unlink()

    found = judge_values(raw, dataset, Options())

    assert found.tallies["day", "amount"].missing > 0
    assert found.problems == [f"{SYMBOL} day: no bin of amount"]


def test_a_field_or_a_symbol_that_nobody_judges_is_a_problem(raw, dataset):
    write_bin(bin_path(dataset, SYMBOL, "close2", "day"), 0, np.ones(3))
    write_bin(bin_path(dataset, "GHOST_USDT", "close", "day"), 0, np.ones(3))

    found = judge_values(raw, dataset, Options())

    assert sorted(found.problems) == [
        "GHOST_USDT is in the dataset and has no candle",
        f"{SYMBOL} day: fields that nobody judges: close2",
    ]


@pytest.mark.invariant(4)
@pytest.mark.parametrize("name", ["15min", "15min_future"])
def test_a_calendar_with_a_hole_is_found(raw, dataset, name):
    path = dataset / "calendars" / f"{name}.txt"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:100] + lines[101:]))

    assert any(f"calendar {name}" in problem for problem in judge_values(raw, dataset, Options()).problems)


@pytest.mark.invariant(6)
@pytest.mark.parametrize("market", ["all", "top50"])
def test_a_span_that_is_cut_is_found(raw, dataset, market):
    path = dataset / "instruments" / f"{market}.txt"
    rows = path.read_text().splitlines(keepends=True)
    path.write_text("".join(rows[1:]))

    assert any(f"{market}.txt" in problem for problem in judge_values(raw, dataset, Options()).problems)


# --- Look-ahead


def at(text: str) -> int:
    return int(np.datetime64(text, "ms").astype(np.int64))


def judged_cut(made: Path, folder: Path, instant: int, change=lambda _, bars: bars):
    """Cut, write the cut's dataset and the whole one with the same mistake, and compare."""
    data = made / "okx_data"
    cut_raw(data, folder / "okx_data", instant)
    write_dataset(folder / "okx_data", folder / "cut", end_of(Raw(folder / "okx_data")), change)
    write_dataset(data, folder / "whole", end_of(Raw(data)), change)
    return judge_cut(folder / "whole", folder / "cut", folder / "okx_data", instant)


@pytest.mark.invariant(5)
def test_what_looks_back_alone_does_not_change_when_the_future_is_taken_away(made, tmp_path):
    found = judged_cut(made, tmp_path, at("2025-01-02T13:37:12.345"))

    assert found.clean, found.problems
    assert found.total.compared > 80_000


def from_the_end(bars, field):
    """Return a field filled backwards: a bar without a value gets the one that comes."""
    return bars.assign(**{field: bars[field].bfill()})


LOOKING_AHEAD = {
    "filled backwards": lambda _, bars: from_the_end(bars, "funding_predicted").assign(close=bars["close"].bfill()),
    "the value of the next bar": lambda _, bars: bars.assign(funding_rank=bars["funding_rank"].shift(-1)),
    "scaled by the whole": lambda _, bars: bars.assign(volume=bars["volume"] / bars["volume"].max()),
}


@pytest.mark.invariant(5)
@pytest.mark.parametrize("mistake", LOOKING_AHEAD)
def test_what_looks_ahead_is_found(made, tmp_path, mistake):
    found = judged_cut(made, tmp_path, at("2025-01-02T13:37"), LOOKING_AHEAD[mistake])

    assert found.total.faults > 0


def test_a_bar_that_the_cut_lost_is_found(made, tmp_path):
    data, instant = made / "okx_data", at("2025-01-02T13:37")
    cut_raw(data, tmp_path / "okx_data", instant)
    write_dataset(tmp_path / "okx_data", tmp_path / "cut", end_of(Raw(tmp_path / "okx_data")))
    stored = read_bin(tmp_path / "cut", SYMBOL, "close", "1min")
    write_bin(bin_path(tmp_path / "cut", SYMBOL, "close", "1min"), stored.first, stored.values[:-1])

    found = judge_cut(made / "qlib", tmp_path / "cut", tmp_path / "okx_data", instant)

    assert found.total.missing == 1
    assert found.tallies["1min", "close"].first.startswith(f"{SYMBOL} close 2025-01-02 13:36:00")


def test_a_cut_holds_nothing_that_happened_or_was_known_later(made, tmp_path):
    instant = at("2025-01-02T16:00:00")
    cut_raw(made / "okx_data", tmp_path, instant)

    latest = {
        (dataset, column): max(
            at(str(time.replace(tzinfo=None)))
            for path in tmp_path.glob(f"{dataset}/*/*.parquet")
            for time in pq.read_table(path, partitioning=None)[column].to_pylist()
        )
        for dataset, column in (
            ("kline_1m", "open_time"),
            ("funding", "funding_time"),
            ("funding_predicted", "known_time"),
            ("universe", "ranked_time"),
        )
    }
    assert latest["kline_1m", "open_time"] == instant - MINUTE_MS
    assert latest["funding", "funding_time"] < instant
    assert latest["funding_predicted", "known_time"] < instant
    assert latest["universe", "ranked_time"] <= instant
    for path in tmp_path.glob("ledger/date=2025-01-02/*.parquet"):
        for row in pq.read_table(path, partitioning=None).to_pylist():
            for runs in (row["wanted"], row["absent"], row["halted"], row["received"], row["healed"]):
                assert all(int(run.split("-")[1]) < 16 * 60 for run in runs.split(",") if run)


def test_it_is_cut_on_and_off_the_bars_and_where_something_happened(raw):
    kinds = [kind for _, kind in instants(raw, end_of(raw), 44, seed=1)]
    days = [instant for instant, kind in instants(raw, end_of(raw), 44, seed=1) if kind == "day bar"]

    assert {"off the bars", "day bar", "settlement, at", "prediction, just after", "ranking, at"} <= set(kinds)
    assert days
    assert all(instant % DAY_MS == 0 or instant == min(days) for instant in days)


# --- The converter itself


@pytest.mark.invariant(5)
@pytest.mark.skipif(bool(UNJUDGED), reason="a field lacks the judge's formula: test_one_row names it")
@pytest.mark.parametrize(
    ("symbols", "days", "cuts", "least"), [(3, 3, 2, 100_000), pytest.param(6, 4, 5, 400_000, marks=pytest.mark.proof)]
)
def test_the_converter_passes_the_judges(tmp_path, symbols, days, cuts, least):
    for _ in synthetic_year.make(Market(symbols=symbols, days=days, seed=3, members=3), tmp_path / "okx_data"):
        pass
    command = [sys.executable, "-m", "proofs.judges", "--data", str(tmp_path / "okx_data"), "--cuts", str(cuts)]
    command += ["--work", str(tmp_path / "work"), "--json", str(tmp_path / "report.json")]

    answer = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)

    assert answer.returncode == 0, answer.stdout[-4000:] + answer.stderr[-4000:]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["values"]["total"]["compared"] > least
    assert report["lookahead"]["total"]["compared"] > least
    assert not (tmp_path / "work").exists()
