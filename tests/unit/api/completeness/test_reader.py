"""The ledger's files as the api reads them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.completeness import reader
from services.api.completeness.reader import LedgerReader, read_day
from shared.datasets.ledger import LedgerRow
from shared.grid import DAY
from shared.ledger.day import SETS, DayLedger, to_row
from shared.ledger.minutes import FULL_DAY, span_mask
from shared.storage.layout import Partition
from shared.storage.parquet import table_of, write_table
from tests.support.builders import DAY_0

MASKS = st.tuples(st.integers(0, 1439), st.integers(0, 1439)).map(lambda two: span_mask(min(two), max(two)))
LEDGERS = st.builds(DayLedger, **dict.fromkeys(SETS, MASKS))
DATASETS = st.dictionaries(
    st.sampled_from(["kline_1m", "funding"]),
    st.dictionaries(st.sampled_from(["BTC_USDT", "ETH_USDT", "BTC_USDT.BINANCE"]), LEDGERS, min_size=1),
    min_size=1,
)


def write(root, day, datasets):
    rows = [
        to_row("okx", symbol, day, ledger, "v", about=about)
        for about, ledgers in datasets.items()
        for symbol, ledger in ledgers.items()
    ]
    path = Partition(LedgerRow.dataset, day).path(root)
    write_table(path, table_of(LedgerRow, rows))
    return path


@given(datasets=DATASETS)
def test_a_day_reads_back_as_it_was_written(tmp_path_factory, datasets):
    path = write(tmp_path_factory.mktemp("raw"), DAY_0, datasets)

    assert read_day(path) == datasets


@pytest.mark.invariant(9)
def test_what_was_read_ahead_is_read_again_only_where_it_has_changed(tmp_path, monkeypatch):
    """Invariant 9: and then it is, so that no answer is from before the change."""
    days = [DAY_0 + number * DAY for number in range(3)]
    for day in days:
        write(tmp_path, day, {"kline_1m": {"BTC_USDT": DayLedger(wanted=1)}})
    read = []
    monkeypatch.setattr(reader, "read_day", lambda path: read.append(path.name) or read_day(path))
    ledger = LedgerReader(tmp_path)

    ledger.read_ahead([*days, DAY_0 + 9 * DAY])
    assert len(read) == 3
    path = write(tmp_path, days[1], {"kline_1m": {"BTC_USDT": DayLedger(wanted=FULL_DAY)}})
    found = ledger.stored(days)

    assert read[3:] == [path.name]
    assert [day.minutes.ledgers["BTC_USDT"].wanted for day in found.values()] == [1, FULL_DAY, 1]
