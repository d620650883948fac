"""What is kept of the predicted rates decides every bar as all of them would."""

from datetime import timedelta
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.converter.features.asof import AsOf, Contract, PredictedRates
from services.converter.features.bars import Bars, on_grid
from services.converter.features.fields import FIELDS, features
from services.converter.qlib.frequencies import FREQUENCIES
from services.converter.raw.days import EVERY, UnreadableError, read_predictions
from services.converter.raw.predictions import prediction_file, put_down
from shared.datasets.funding import PredictedFundingRate
from shared.grid import DAY, to_ms
from shared.storage.layout import Partition
from shared.storage.segments import RawRows
from tests.support.builders import DAY_0, MIDNIGHT, a_prediction, minute, store

FILE = Partition(PredictedFundingRate.dataset, DAY_0)
INSTANTS = st.one_of(
    st.integers(0, 200).map(lambda number: number * 60_000),  # at the very close of a minute
    st.integers(0, 200 * 60_000),
)
PREDICTIONS = st.dictionaries(
    INSTANTS, st.tuples(st.integers(-1, 700), st.integers(-9, 9), st.sampled_from([None, 1, 8])), max_size=40
)


def reading(root, *symbols):
    return partial(read_predictions, RawRows(root), symbols={*symbols})


def rows_of(given, symbol="BTC_USDT"):
    return [
        a_prediction(
            symbol,
            rate / 7000,
            MIDNIGHT + timedelta(milliseconds=known),
            funding_time=MIDNIGHT + timedelta(minutes=due, milliseconds=3),
            interval_hours=hours,
        )
        for known, (due, rate, hours) in given.items()
    ]


def every_row(rows):
    """Return all predictions, none left out."""
    ordered = sorted(rows, key=lambda row: row.known_time)
    return PredictedRates(
        np.array([to_ms(row.known_time) for row in ordered], np.int64),
        np.array([to_ms(row.funding_time) for row in ordered], np.int64),
        np.array([row.funding_rate for row in ordered], np.float64),
        np.array([np.nan if row.interval_hours is None else row.interval_hours for row in ordered], np.float64),
    )


@settings(deadline=None, max_examples=60)
@given(given_rows=PREDICTIONS, begins=st.sets(st.integers(0, 200), max_size=2))
def test_the_last_prediction_of_each_minute_decides_every_bar_as_all_of_them_do(tmp_path_factory, given_rows, begins):
    folder = tmp_path_factory.mktemp("predictions")
    rows = rows_of(given_rows)
    store(folder, rows)
    lives = Contract(begins=np.array([to_ms(minute(number)) for number in sorted(begins)], np.int64))
    opens = np.arange(to_ms(MIDNIGHT), to_ms(MIDNIGHT + DAY), 60_000)
    columns = dict.fromkeys([field.column for field in FIELDS if field.column], np.ones(1440))

    stored = put_down([FILE] if rows else [], reading(folder, "BTC_USDT"), folder / "put_down")

    kept = stored.of["BTC_USDT"].between(DAY_0, DAY_0) if rows else PredictedRates()
    assert len(kept.known) == len({known // 60_000 for known in given_rows})
    for frequency in FREQUENCIES:
        all_of_them, those_kept = (
            features(
                Bars(on_grid(opens, columns, to_ms(MIDNIGHT), [0], AsOf(predictions=one, contract=lives)), frequency)
            )
            for one in (every_row(rows), kept)
        )
        for name, values in all_of_them.items():
            assert values.tobytes() == those_kept[name].tobytes(), (frequency.name, name)


def test_only_the_symbols_and_the_days_that_are_asked_for_are_kept(tmp_path):
    for day in range(3):
        for symbol in ("AAA_USDT", "BBB_USDT"):
            store(tmp_path, [a_prediction(symbol, day / 1000, minute(day * 1440 + 5))])
    files = [Partition(FILE.dataset, DAY_0 + day * DAY) for day in range(3)]

    stored = put_down(files, reading(tmp_path, "BBB_USDT"), tmp_path / "put_down")

    assert set(stored.of) == {"BBB_USDT"}
    found = stored.of["BBB_USDT"].between(DAY_0 + DAY, DAY_0 + 2 * DAY)
    assert found.known.tolist() == [to_ms(minute(1440 + 5)), to_ms(minute(2 * 1440 + 5))]
    assert found.rates.tolist() == pytest.approx([0.001, 0.002])


def test_a_file_that_cannot_be_read_is_named_for_every_symbol(tmp_path):
    store(tmp_path, [a_prediction()])
    FILE.path(tmp_path).write_bytes(b"torn")

    with pytest.raises(UnreadableError, match="funding_predicted_20250405"):
        read_predictions(RawRows(tmp_path), FILE, {"BTC_USDT"})
    stored = put_down([FILE], reading(tmp_path, "BTC_USDT"), tmp_path / "put_down")

    assert stored.of == {}
    assert "funding_predicted_20250405" in stored.faults[EVERY][DAY_0]


def test_what_was_put_down_is_gone_after_the_run(tmp_path):
    with prediction_file(tmp_path) as path:
        put_down([], reading(tmp_path), path)
        assert path.exists()
        assert path.name.startswith(".")
        assert path.name.endswith(".tmp")  # a run that dies leaves it, and the next one removes it
    assert not path.exists()
