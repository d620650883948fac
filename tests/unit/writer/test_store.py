from collections import defaultdict
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.writer.store import retirable, retire, scan_day, write_batch
from shared.coverage import mask_from_minutes, mask_from_text
from shared.dataset import Partition, day_digest, day_folder, days, partition_of
from shared.events import Candle, FundingRate
from shared.parquet import read_rows
from tests.support.builders import (
    DAY_0,
    a_candle,
    a_funding_rate,
    a_prediction,
    a_ranking,
    minute,
    store,
)

CANDLES = st.lists(
    st.builds(
        lambda symbol, number, known, price: a_candle(symbol, minute(number), float(price), receive_time=minute(known)),
        st.sampled_from(["BTC_USDT", "ETH_USDT"]),
        st.integers(1437, 1443),
        st.integers(0, 3),
        st.integers(1, 3),
    ),
    min_size=1,
    max_size=20,
)


def by_file(rows):
    found = defaultdict(list)
    for row in rows:
        found[partition_of(row)].append(row)
    return found


def contents(root):
    """Return every candle on disk by identity, failing on a copy."""
    found = {}
    for path in sorted((root / "kline_1m").rglob("*.parquet")):
        rows = read_rows(Candle, path).to_pylist()
        assert [row["open_time"] for row in rows] == sorted({row["open_time"] for row in rows})
        found |= {(row["symbol"], row["open_time"]): row["open"] for row in rows}
    return found


@pytest.mark.invariant(2)
@settings(deadline=None, max_examples=40)
@given(CANDLES, st.data())
def test_whatever_is_redelivered_in_whatever_order_the_files_are_the_same(tmp_path_factory, rows, data):
    """Invariant 2."""
    root, model = tmp_path_factory.mktemp("raw"), {}
    for row in sorted(rows, key=lambda row: (row.receive_time, row.open)):
        model[row.symbol, row.open_time] = row.open
    arrivals = data.draw(st.permutations([*rows, *data.draw(st.lists(st.sampled_from(rows), max_size=6))]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(arrivals)), max_size=3)))

    for begin, end in zip([0, *cuts], [*cuts, len(arrivals)], strict=True):
        write_batch(root, by_file(arrivals[begin:end]))

    assert contents(root) == model


def test_what_a_file_holds_now_is_told(tmp_path):
    write_batch(tmp_path, by_file(a_candle(open_time=minute(number)) for number in (0, 1, 2, 7)))

    (stored,) = write_batch(tmp_path, by_file([a_candle(open_time=minute(3))]))

    assert stored.partition == Partition("kline_1m", DAY_0, "BTC_USDT")
    assert stored.runs == "0-3,7-7"
    assert stored.newest == minute(7)


def test_only_candles_have_coverage(tmp_path):
    assert write_batch(tmp_path, by_file([a_funding_rate(), a_prediction(), *a_ranking("BTC_USDT").ranks])) == []
    assert len(list(tmp_path.rglob("*.parquet"))) == 3


def test_a_corrected_settlement_replaces_the_old_one(tmp_path):
    for rate, known in ((0.1, 1), (0.3, 3), (0.2, 2)):
        write_batch(tmp_path, by_file([a_funding_rate(rate=rate, known_time=minute(known))]))

    table = read_rows(FundingRate, Partition("funding", DAY_0).path(tmp_path))
    assert table["funding_rate"].to_pylist() == [0.3]


@settings(deadline=None, max_examples=30)
@given(st.sets(st.integers(0, 1439), min_size=1))
def test_the_runs_of_a_file_are_its_minutes(tmp_path_factory, numbers):
    (stored,) = write_batch(tmp_path_factory.mktemp("raw"), by_file(a_candle(open_time=minute(n)) for n in numbers))

    assert mask_from_text(stored.runs) == mask_from_minutes(numbers)
    assert stored.newest == minute(max(numbers))


# --- what is on disk


def test_coverage_is_rebuilt_from_disk(tmp_path):
    store(tmp_path, [a_candle(open_time=minute(number)) for number in (5, 6, 9, 1440)])
    store(tmp_path, [a_candle("ETH_USDT", minute(0))])

    found = scan_day(tmp_path, DAY_0)

    assert {stored.partition.symbol: mask_from_text(stored.runs) for stored in found} == {
        "BTC_USDT": mask_from_minutes([5, 6, 9]),
        "ETH_USDT": 1,
    }


@pytest.mark.invariant(12)
def test_a_damaged_file_counts_as_absent_and_stops_nobody(tmp_path):
    """Invariant 12."""
    store(tmp_path, [a_candle("BTC_USDT"), a_candle("BAD_USDT")])
    Partition("kline_1m", DAY_0, "BAD_USDT").path(tmp_path).write_bytes(b"torn")

    found = scan_day(tmp_path, DAY_0)

    assert [stored.partition.symbol for stored in found] == ["BTC_USDT"]


@pytest.mark.invariant(12)
@pytest.mark.parametrize("content", [b"", b"torn", b"x" * 5000, b"PAR1" + b"\xff" * 500 + b"\xf4\x01\x00\x00PAR1"])
def test_a_damaged_file_is_put_aside_and_its_new_rows_are_stored(tmp_path, content):
    """Invariant 12: else the writer would die of it again and again, and store nothing for anybody."""
    path = Partition("kline_1m", DAY_0, "BTC_USDT").path(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)

    stored = write_batch(tmp_path, by_file([a_candle("BTC_USDT"), a_candle("ETH_USDT")]))

    assert {file.partition.symbol: file.runs for file in stored} == {"BTC_USDT": "0-0", "ETH_USDT": "0-0"}
    assert [entry.read_bytes() for entry in path.parent.glob("*.damaged")] == [content]


# --- retention


@pytest.mark.invariant(11)
@given(st.lists(st.integers(0, 200), unique=True), st.integers(1, 100), st.sets(st.integers(0, 200)))
def test_only_old_days_that_are_converted_may_go(ages, retention, converted):
    """Invariant 11."""
    raw_days = [DAY_0 - timedelta(days=age) for age in ages]

    gone = retirable(raw_days, DAY_0, retention, lambda day: (DAY_0 - day).days in converted)

    assert {(DAY_0 - day).days for day in gone} == {age for age in ages if age > retention and age in converted}


def _three_days(root):
    store(root, [a_candle(symbol, minute(day * 1440)) for day in range(3) for symbol in ("BTC_USDT", "ETH_USDT")])
    store(root, [a_funding_rate(), a_prediction(), *a_ranking("BTC_USDT").ranks])
    return [DAY_0 + timedelta(days=day) for day in range(3)]


def _digests(root, *chosen):
    return {f"kline_1m/{day}": day_digest(root, "kline_1m", day) for day in chosen}


@pytest.mark.invariant(11)
def test_a_day_that_is_not_converted_is_kept_however_old(tmp_path):
    """Invariant 11."""
    raw_days = _three_days(tmp_path)

    retire(tmp_path, DAY_0 + timedelta(days=500), 90, {})

    assert days(tmp_path, "kline_1m") == raw_days


@pytest.mark.invariant(11)
def test_a_day_that_changed_since_its_conversion_is_kept(tmp_path):
    """Invariant 11: as it stands, not as it once was."""
    first, second, third = _three_days(tmp_path)
    digests = _digests(tmp_path, first, second)
    store(tmp_path, [a_candle("LATE_USDT", minute(1440 + 5))])

    gone = retire(tmp_path, third + timedelta(days=91), 90, digests)

    assert first in gone
    assert days(tmp_path, "kline_1m") == [second, third]


@pytest.mark.invariant(11)
def test_what_is_small_and_cannot_be_fetched_again_is_kept_for_ever(tmp_path):
    """Invariant 11: settlements and rankings stay, predictions are bounded by their age."""
    raw_days = _three_days(tmp_path)

    retire(tmp_path, DAY_0 + timedelta(days=500), 90, _digests(tmp_path, *raw_days))

    assert days(tmp_path, "kline_1m") == days(tmp_path, "funding_predicted") == []
    assert days(tmp_path, "funding") == days(tmp_path, "universe") == [DAY_0]


def test_a_day_within_the_retention_is_kept(tmp_path):
    raw_days = _three_days(tmp_path)

    retire(tmp_path, DAY_0 + timedelta(days=90), 90, _digests(tmp_path, *raw_days))

    assert day_folder(tmp_path, "kline_1m", DAY_0).exists()
