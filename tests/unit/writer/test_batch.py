from datetime import timedelta

import pytest

from services.writer.batch import Batch, should_flush
from services.writer.disk.retention import is_retired
from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate
from shared.datasets.universe import Rank
from tests.support.builders import DAY_0, a_candle, a_funding_rate, a_prediction, a_ranking, a_verdict, an_entry, minute

ONE_OR_TEN = {"max_age_seconds": 10.0, "max_entries": 3}


def filled(count, opened=100.0, kind=a_prediction):
    batch = Batch()
    for number in range(count):
        batch.add(an_entry(kind(), number), kind(), opened + number)
    return batch


@pytest.mark.parametrize(
    ("count", "now", "answer"),
    [(0, 1e9, False), (1, 109.9, False), (1, 110.0, True), (2, 100.0, False), (3, 100.0, True), (4, 100.0, True)],
)
def test_a_batch_is_written_once_it_is_old_or_large(count, now, answer):
    assert should_flush(filled(count, kind=a_funding_rate), now, **ONE_OR_TEN) == answer


def test_age_counts_from_the_first_entry_and_again_after_a_write():
    batch = filled(2)

    batch.clear()

    assert len(batch) == 0
    assert not batch.rows
    assert not should_flush(batch, 1e9, **ONE_OR_TEN)


def test_candles_are_written_once_their_burst_is_over_and_predictions_wait():
    batch = filled(1)
    assert not should_flush(batch, 105.0, **ONE_OR_TEN)

    batch.add(an_entry(a_candle(), 7), a_candle(), 105.0)

    assert not should_flush(batch, 105.9, **ONE_OR_TEN)
    assert should_flush(batch, 106.0, **ONE_OR_TEN)
    batch.clear()
    assert not should_flush(batch, 1e9, **ONE_OR_TEN)


def test_what_is_waited_for_is_written_soon_and_predictions_a_minute_later():
    patient, urgent = filled(1), filled(1)
    urgent.add(an_entry(a_verdict("wanted", 0, 1), 7), a_verdict("wanted", 0, 1), 103.0)

    assert [should_flush(urgent, now, **ONE_OR_TEN) for now in (112.9, 113.0)] == [False, True]
    assert [should_flush(patient, now, **ONE_OR_TEN) for now in (159.9, 160.0)] == [False, True]


def test_rows_are_split_by_dataset():
    batch = Batch()
    for number, event in enumerate(
        [a_candle("BTC_USDT"), a_candle("ETH_USDT"), a_candle("BTC_USDT", minute(1440)), a_funding_rate("BTC_USDT")]
    ):
        batch.add(an_entry(event, number), event, 0.0)

    assert {kind: len(rows) for kind, rows in batch.rows.items()} == {Candle: 3, FundingRate: 1}


def test_an_entry_that_leaves_no_row_is_acknowledged_all_the_same():
    batch = Batch()

    batch.add(an_entry(a_candle()), None, 0.0)

    assert len(batch.entries) == 1
    assert not batch.rows


def test_a_ranking_leaves_a_row_for_every_swap():
    batch, ranking = Batch(), a_ranking("BTC_USDT", others=["ETH_USDT"])

    batch.add(an_entry(ranking), ranking, 0.0)

    assert [row.symbol for row in batch.rows[Rank]] == ["BTC_USDT", "ETH_USDT"]


@pytest.mark.parametrize(
    ("event", "age", "answer"),
    [
        (a_candle(), 90, False),
        (a_candle(), 91, True),
        (a_prediction(), 91, True),
        (a_funding_rate(), 400, False),
        (a_ranking("BTC_USDT"), 400, False),
    ],
)
def test_only_what_can_be_fetched_again_is_ever_retired(event, age, answer):
    assert is_retired(event, DAY_0 + timedelta(days=age), 90) == answer
