"""A ledger that an older version wrote, with the sets `due` and `settled` and without `about`, goes on being read."""

from datetime import datetime

import pyarrow as pa
import pytest

from services.api.completeness.reader import read_day as read_by_api
from services.converter.raw.days import read_ledgers as read_by_converter
from services.writer.audit.auditor import read_ledgers as read_by_audit
from services.writer.disk.ledger import read_day, scan_day
from services.writer.disk.reading import StoredRows
from shared.ledger.day import DayLedger
from shared.ledger.minutes import FULL_DAY, mask_from_minutes
from shared.storage.layout import Partition, partition_of, signature
from shared.storage.parquet import table_of, write_table
from shared.storage.segments import RawRows
from tests.support.builders import DAY_0, MIDNIGHT, a_candle, a_funding_rate, a_verdict, minute, write_batch

pytestmark = pytest.mark.invariant(7)

CANDLES = DayLedger(wanted=FULL_DAY, received=0b11, absent=0b100, refused=0b1000)
FUNDING = DayLedger(wanted=mask_from_minutes([0, 480]), received=1)


@pytest.fixture
def old(tmp_path):
    """Write a day as the older version left it: two candles, one settled rate of two that were due."""
    rows = {"kline_1m": [a_candle(), a_candle(open_time=minute(1))], "funding": [a_funding_rate()]}
    for one in rows.values():
        write_table(partition_of(one[0]).path(tmp_path), table_of(type(one[0]), one))
    candles = partition_of(rows["kline_1m"][0]).path(tmp_path)
    texts = {"wanted": "0-1439", "received": "0-1", "healed": "", "absent": "2-2", "halted": ""}
    texts |= {"due": "0-0,480-480", "settled": "0-0", "version": signature(candles.stat()), "refused": "3-3"}
    columns: dict[str, list[str] | list[datetime]] = {name: [text] for name, text in texts.items()}
    columns = {"exchange": ["okx"], "symbol": ["BTC_USDT"], "day": [MIDNIGHT]} | columns
    table = pa.table(columns).set_column(2, "day", pa.array([MIDNIGHT], pa.timestamp("ms", tz="UTC")))
    write_table(Partition("ledger", DAY_0).path(tmp_path), table)
    return tmp_path


def test_the_writer_takes_it_over_and_goes_on(old):
    before, now = scan_day(old, DAY_0)

    assert before.keys() == now.keys() == {("kline_1m", "BTC_USDT"), ("funding", "BTC_USDT")}
    assert now["kline_1m", "BTC_USDT"].ledger == CANDLES
    assert now["funding", "BTC_USDT"].ledger == FUNDING

    write_batch(old, [], [a_verdict("absent", 4, 5)])
    assert read_day(old, DAY_0)["kline_1m", "BTC_USDT"].ledger == CANDLES | DayLedger(absent=1 << 4)
    assert read_day(old, DAY_0)["funding", "BTC_USDT"].ledger == FUNDING
    assert scan_day(old, DAY_0)[0] == scan_day(old, DAY_0)[1]


def test_every_other_reader_reads_the_same_before_and_after_the_writer_did(old):
    def read():
        path, file = Partition("ledger", DAY_0).path(old), Partition("ledger", DAY_0)
        converted = read_by_converter(RawRows(old), [file])
        assert not converted.unreadable
        return (
            read_by_api(path),
            read_by_audit(StoredRows(old), DAY_0, "okx"),
            read_by_audit(StoredRows(old), DAY_0, "okx", "funding"),
            [(one.without, one.stored) for one in converted.of[DAY_0].values()],
        )

    before = read()
    write_batch(old, [], [a_verdict("absent", 2, 3, "ETH_USDT")])
    after = read()

    expected = {"kline_1m": {"BTC_USDT": CANDLES}, "funding": {"BTC_USDT": FUNDING}}
    assert before == (expected, {"BTC_USDT": CANDLES}, {"BTC_USDT": FUNDING}, [(0b100, 0b11)])
    assert {name: symbols["BTC_USDT"] for name, symbols in after[0].items()} == {
        "kline_1m": CANDLES,
        "funding": FUNDING,
    }
    assert after[3][0] == before[3][0]
