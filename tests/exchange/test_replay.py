import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.simulator.engine.replay import UnusableRecordingError, load_recording

BEGIN = 1_748_736_000_000
MINUTE = 60_000
HOUR = 60 * MINUTE
CANDLE_NAMES = ("symbol", "timestamp", "open", "high", "low", "close", "volume")
ROW = ("ADA", BEGIN, 1.0, 2.0, 0.5, 1.5, 10.0)


def save(folder, candles=(ROW,), funding=(("ADA", BEGIN, 0.001),), candle_names=CANDLE_NAMES, **columns):
    table = pa.table(dict(zip(candle_names, map(list, zip(*candles, strict=True)), strict=True)) | columns)
    pq.write_table(table, folder / "candles_1m.parquet")
    names = ("symbol", "timestamp", "funding_rate")
    pq.write_table(
        pa.table(dict(zip(names, map(list, zip(*funding, strict=True)), strict=True))), folder / "funding.parquet"
    )
    return folder


def test_the_market_is_exactly_its_recording(recording):
    market = load_recording(recording.folder)

    assert set(market.instruments) == set(recording.candles)
    for inst_id, rows in recording.candles.items():
        replayed = {row.open_ms: tuple(row[1:6]) for row in market.candles(inst_id, 0, 10**15)}
        assert replayed == rows
        assert list(replayed) == sorted(replayed)


def test_settlements_are_snapped_to_the_minute_and_keep_their_rate(recording):
    market = load_recording(recording.folder)

    for inst_id in market.instruments:
        assert dict(market.settlements(inst_id, 0, 10**15)) == recording.funding.get(inst_id, {})


def test_listing_and_delisting_follow_the_rows(recording):
    instruments = load_recording(recording.folder).instruments

    late, gone = instruments["LATE-USDT-SWAP"], instruments["GONE-USDT-SWAP"]
    listed = BEGIN + 34 * HOUR
    assert [late.state(listed + offset) for offset in (-2 * HOUR, -HOUR, -5 * MINUTE, 0)] == [
        "unknown",
        "announced",
        "preopen",
        "live",
    ]
    ended = BEGIN + 34 * HOUR + 30 * MINUTE
    assert [gone.state(ended + offset) for offset in (0, MINUTE - 1, MINUTE)] == ["live", "live", "gone"]
    assert instruments["ADA-USDT-SWAP"].delist_ms is None


def test_without_delisting_what_ends_early_stays_listed_and_silent(recording):
    market = load_recording(recording.folder, delist=False)

    gone = market.instruments["GONE-USDT-SWAP"]
    ended = BEGIN + 34 * HOUR + 30 * MINUTE
    assert gone.state(ended + HOUR) == "live"
    assert list(market.candles("GONE-USDT-SWAP", ended, ended + HOUR)) == []


def test_the_interval_changes_where_the_recording_changes_it(recording):
    market = load_recording(recording.folder)

    def hours(at):
        period = market.funding_period("1000PEPE-USDT-SWAP", BEGIN + at * HOUR)
        return [(time - BEGIN) / HOUR for time in (period.began_ms, period.funding_ms, period.following_ms)]

    assert hours(0) == [0, 8, 16]
    assert hours(10) == [8, 16, 20]
    assert hours(16) == [16, 20, 24]


def test_after_the_last_settlement_time_moves_on_but_nothing_is_claimed(recording):
    market = load_recording(recording.folder)

    period = market.funding_period("GONE-USDT-SWAP", BEGIN + 25 * HOUR)

    assert period.funding_ms == BEGIN + 32 * HOUR
    assert period.settled == (BEGIN + 8 * HOUR, 0.0125)
    assert period.upcoming_rate == 0.0125


def test_before_the_first_settlement_the_first_rate_is_on_its_way(recording):
    period = load_recording(recording.folder).funding_period("GONE-USDT-SWAP", BEGIN + HOUR)

    assert (period.began_ms, period.funding_ms, period.settled) == (BEGIN, BEGIN + 8 * HOUR, None)


def test_an_instrument_without_funding_has_a_rate_of_nothing(recording):
    period = load_recording(recording.folder).funding_period("LATE-USDT-SWAP", BEGIN + 34 * HOUR)

    assert (period.settled, period.upcoming_rate, period.funding_ms) == (None, 0.0, BEGIN + 40 * HOUR)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("spelling", ["integer", "naive", "aware", "elsewhere"])
def test_times_are_read_in_every_unit_and_spelling(tmp_path, unit, spelling):
    factor = {"s": 0.001, "ms": 1, "us": 1_000, "ns": 1_000_000}[unit]
    times = pa.array([int(BEGIN * factor)], pa.int64())
    zone = {"aware": "UTC", "elsewhere": "America/New_York"}.get(spelling)
    column = times if spelling == "integer" else times.cast(pa.timestamp(unit, zone))
    save(tmp_path, timestamp=column)

    assert [row.open_ms for row in load_recording(tmp_path).candles("ADA-USDT-SWAP", 0, 10**15)] == [BEGIN]


def test_a_recorded_turnover_is_used_and_otherwise_made_of_the_typical_price(tmp_path):
    (made,) = load_recording(save(tmp_path)).candles("ADA-USDT-SWAP", 0, 10**15)
    (used,) = load_recording(save(tmp_path, quote_volume=[13.25])).candles("ADA-USDT-SWAP", 0, 10**15)

    assert made.quote_volume == pytest.approx(10 * 4 / 3)
    assert used.quote_volume == 13.25


def test_spellings_of_one_instrument_are_one_instrument(tmp_path):
    market = load_recording(save(tmp_path, candles=(ROW, ("ADA-USDT-SWAP", BEGIN + MINUTE, *ROW[2:]))))

    assert list(market.instruments) == ["ADA-USDT-SWAP"]
    assert len(market.candles("ADA-USDT-SWAP", 0, 10**15)) == 2


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"candle_names": (*CANDLE_NAMES[:-1], "vol")}, "column volume is missing"),
        ({"candles": ((*ROW[:2], float("nan"), *ROW[3:]),)}, "empty or infinite"),
        ({"candles": ((*ROW[:2], 0.0, *ROW[3:]),)}, "not above 0"),
        ({"candles": (("ADA", BEGIN + 59_999, *ROW[2:]),)}, "open time"),
        ({"candles": (("?", *ROW[1:]),)}, "cannot read"),
        ({"funding": (("ADA", BEGIN, float("inf")),)}, "funding rates"),
        ({"symbol": pa.array([None], pa.string())}, "no `symbol`"),
        ({"open": pa.array(["a"])}, "not numeric"),
    ],
)
def test_an_unusable_recording_says_what_is_wrong(tmp_path, change, complaint):
    save(tmp_path, **change)

    with pytest.raises(UnusableRecordingError, match=complaint) as error:
        load_recording(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_missing_empty_and_broken_files_are_named(tmp_path):
    with pytest.raises(UnusableRecordingError, match="no such file"):
        load_recording(tmp_path)
    (tmp_path / "candles_1m.parquet").write_bytes(b"PAR0")
    with pytest.raises(UnusableRecordingError, match="not a readable Parquet"):
        load_recording(tmp_path)
    empty = pa.table({name: pa.array([], pa.float64()) for name in CANDLE_NAMES})
    pq.write_table(empty, tmp_path / "candles_1m.parquet")
    with pytest.raises(UnusableRecordingError, match="no rows"):
        load_recording(tmp_path)


def test_newest_rows_are_the_last_ones_of_the_window(recording):
    market = load_recording(recording.folder)
    dice = np.random.default_rng(1)
    everything = market.candles("1000PEPE-USDT-SWAP", 0, 10**15)

    for begin, end in np.sort(dice.integers(BEGIN, BEGIN + 36 * HOUR, (20, 2)), axis=1).tolist():
        expected = [row for row in everything if begin <= row.open_ms < end]
        assert market.candles("1000PEPE-USDT-SWAP", begin, end) == expected
        assert market.newest_candles("1000PEPE-USDT-SWAP", begin, end, 7) == expected[-7:]
