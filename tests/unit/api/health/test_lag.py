"""Ages of symbols, and the metrics that are made of them."""

from dataclasses import replace
from datetime import timedelta

from services.api.disk import scan
from services.api.health.lag import lag_of, summary, symbol_ages
from services.api.health.status import status_of
from services.api.metrics import exposition


def ages(snapshot, **options):
    return [(age.symbol, age.age_seconds, age.member) for age in symbol_ages(snapshot, **options)]


def test_age_counts_from_the_end_of_the_candle_oldest_first(healthy, now):
    marks = {"newest:BTC_USDT": now - timedelta(seconds=90), "newest:ETH_USDT": now - timedelta(seconds=400)}

    assert ages(replace(healthy, watermarks=marks)) == [("ETH_USDT", 340.0, True), ("BTC_USDT", 30.0, True)]


def test_member_without_a_candle_comes_first(healthy):
    assert ages(healthy) == [("ETH_USDT", None, True), ("BTC_USDT", 30.0, True)]


def test_symbols_that_left_are_shown_on_request(healthy, now):
    left = replace(healthy, watermarks={**healthy.watermarks, "newest:OLD_USDT": now - timedelta(days=2)})

    assert "OLD_USDT" not in [symbol for symbol, *_ in ages(left)]
    assert ("OLD_USDT", 2 * 86400 - 60.0, False) in ages(left, all_symbols=True)


def test_lag_shows_groups_and_channels(healthy, make_beat, make_lag):
    channel = {"connections": 2, "subscribed": 50, "rejected": {}, "data_age_seconds": 0.4}
    beat = make_beat("collector", details={"candles": channel, "members": 50})
    lag = lag_of(
        replace(
            healthy,
            heartbeats={**healthy.heartbeats, "collector": beat},
            lags=(make_lag("candles", "writer", lag=3, pending=4, age_seconds=2),),
        )
    )

    assert [(row.stream, row.group, row.lag, row.pending, row.oldest_age_seconds) for row in lag.groups] == [
        ("candles", "writer", 3, 4, 2.0)
    ]
    assert [(row.channel, row.data_age_seconds, row.subscribed) for row in lag.channels] == [("candles", 0.4, 50)]


def test_metrics_show_the_same_as_numbers(healthy, make_lag, tmp_path):
    snapshot = replace(healthy, lags=(make_lag("candles", "writer", pending=4, age_seconds=2),), dead_letters=3)

    text = exposition(snapshot, status_of(snapshot), scan(tmp_path, tmp_path)).decode()

    for line in (
        "qlib_crypto_redis_up 1.0",
        'qlib_crypto_service_up{service="writer"} 1.0',
        'qlib_crypto_service_ok{service="writer"} 1.0',
        'qlib_crypto_stream_length{stream="candles"} 4.0',
        'qlib_crypto_group_pending{group="writer",stream="candles"} 4.0',
        'qlib_crypto_group_oldest_age_seconds{group="writer",stream="candles"} 2.0',
        'qlib_crypto_candle_age_seconds{symbol="BTC_USDT"} 30.0',
        'qlib_crypto_watermark_age_seconds{watermark="written_until"} 30.0',
        "qlib_crypto_dead_letter_entries 3.0",
        'qlib_crypto_dataset_bytes{dataset="kline_1m"} 0.0',
    ):
        assert line in text.splitlines(), line
    assert "newest:" not in text


def test_metrics_show_the_ledger(healthy, make_ledger):
    snapshot = replace(healthy, ledger=make_ledger(missing=7))

    text = exposition(snapshot, status_of(snapshot), None).decode()

    for line in (
        'qlib_crypto_ledger_minutes{verdict="received"} 712.0',
        'qlib_crypto_ledger_minutes{verdict="missing"} 7.0',
        'qlib_crypto_ledger_settlements{state="settled"} 1.0',
        'qlib_crypto_ledger_settlements{state="missing"} 0.0',
        "qlib_crypto_ledger_open_gaps 1.0",
        "qlib_crypto_ledger_oldest_gap_seconds 21630.0",
        "qlib_crypto_missing_minutes 7.0",
        f"qlib_crypto_ledger_complete_ratio {712 / 719}",
    ):
        assert line in text.splitlines(), line


def test_missing_minutes_are_the_ledgers(healthy, make_ledger):
    assert lag_of(replace(healthy, ledger=make_ledger(missing=7))).missing_minutes == 7
    assert lag_of(healthy).missing_minutes == 0
    assert lag_of(replace(healthy, ledger=None)).missing_minutes is None
    assert summary(replace(healthy, ledger=make_ledger(missing=7)))["missing_minutes"] == 7


def test_metrics_leave_out_what_is_unknown(healthy):
    broken = replace(healthy, redis_problem="Redis does not answer")

    text = exposition(broken, status_of(broken), None).decode()

    assert "qlib_crypto_redis_up 0.0" in text
    assert "qlib_crypto_service_up" not in text
    assert "qlib_crypto_ledger" not in text
    assert "qlib_crypto_dataset_bytes" not in text


def test_no_metric_is_declared_twice(healthy, tmp_path):
    text = exposition(healthy, status_of(healthy), scan(tmp_path, tmp_path)).decode()

    declared = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(declared) == len(set(declared))
