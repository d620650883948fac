"""One candle, followed through the six links from the exchange's row to the number that Qlib reads.

1 row → 2 candle → 3 bus → 4 writer → 5 day file → 6 bin. Real Redis, real files, the real parts.
"""

import asyncio
import json
import struct
import time

from services.collector.channels.candles import CandleIntake
from services.collector.publisher import Publisher
from services.collector.stream.connection import Row
from services.collector.stream.okx import open_streams
from services.collector.tracking.universe import Reach, Tracker
from services.converter.convert import convert
from services.writer.batch import Batch
from services.writer.disk.store import RawStore
from shared.clock import ExchangeClock, Sample
from shared.datasets.candle import Candle
from shared.grid import MINUTE
from shared.ledger.replica import LedgerCopy
from shared.runtime.service import Health, Service
from shared.storage.parquet import read_rows
from shared.storage.segments import by_partition, read_segment, segments_of
from tests.support.builders import a_ranking, at

#: As OKX sent it on 2025-05-12: time, open, high, low, close, contracts, coins, quote currency, confirm.
ROW = ["1747094040000", "102806.1", "102820.4", "102806.1", "102820.4", "1040.37", "10.4037", "1069603.34883", "1"]
OPENED = at("2025-05-12 23:54")
EXPECTED = {
    "open": 102806.1,
    "high": 102820.4,
    "low": 102806.1,
    "close": 102820.4,
    "volume": 10.4037,
    "amount": 1069603.34883,
}


def a_frame(row):
    return json.dumps({"arg": {"channel": "candle1m", "instId": "BTC-USDT-SWAP"}, "data": [row]})


async def test_a_candle_from_the_exchanges_row_to_qlibs_bin(bus, tmp_path):
    raw, qlib = tmp_path / "okx_data", tmp_path / "qlib_data"

    # 1 → 2: the collector reads the frame; a partial row is nothing yet, a confirmed one is a candle.
    clock, tracker, asides = ExchangeClock(), Tracker(Reach(0), LedgerCopy()), []
    for ago in (1.0, 0.0):
        moment = time.monotonic() - ago
        clock.add(Sample(moment, moment, (OPENED + MINUTE).timestamp() - ago))
    tracker.apply(a_ranking("BTC_USDT", ranked_time=OPENED), OPENED, {})
    publisher = Publisher(Service("collector", bus, None, clock, Health(), asyncio.Event()), 1000)
    intake = CandleIntake(tracker, clock, publisher.append, lambda *aside: asides.append(aside))
    stream = open_streams("wss://exchange", ca_file=None, now=clock.latest)["candles"]
    connection = stream.connect(lambda seen: intake.take(seen) if isinstance(seen, Row) else asides.append(seen))

    connection.receive(a_frame([*ROW[:8], "0"]))
    assert len(publisher) == 0
    connection.receive(a_frame(ROW))
    connection.receive(a_frame(ROW))

    assert len(publisher) == 1
    assert asides == []

    # 2 → 3: the publisher puts it onto the bus, where it is readable by people.
    await publisher.flush()

    ((_, fields),) = await bus._redis.xrange("candles")
    assert (fields["event"], fields["symbol"], fields["open_time"]) == ("candle", "BTC_USDT", "2025-05-12T23:54:00Z")
    assert {name: float(fields[name]) for name in EXPECTED} == EXPECTED

    # 3 → 4: the writer gets the same candle.
    reading = bus.consume(("candles",), "writer", consumer="journey", count=10, block_ms=50)
    entries = await anext(reading)
    await reading.aclose()
    batch = Batch()
    for entry in entries:
        batch.add(entry, entry.event(), now=0.0)

    ((kind, (candle,)),) = batch.rows.items()
    assert kind is Candle
    assert {name: getattr(candle, name) for name in EXPECTED} == EXPECTED
    assert (candle.contracts, candle.source, candle.interval) == (1040.37, "ws", "1m")

    # 4 → 5: durable first, acknowledged then.
    store = RawStore(raw)
    written = store.append(batch.rows)
    await bus.acknowledge("writer", batch.entries)

    (segment,) = segments_of(raw)
    (rows,) = by_partition(Candle, read_segment(raw, segment)).values()
    assert {name: rows[name][0].as_py() for name in EXPECTED} == EXPECTED

    # 5 → 6: with all others of the hour into the file of its day.
    chosen = store.begin_compaction()
    store.merge(chosen)

    path = raw / "kline_1m" / "date=2025-05-12" / "BTC_USDT_20250512.parquet"
    (row,) = read_rows(Candle, path).to_pylist()
    assert {name: row[name] for name in EXPECTED} == EXPECTED
    assert row["open_time"] == OPENED
    assert written[OPENED.date()]["kline_1m", "BTC_USDT"].ledger.received == 1 << 1434
    assert [(lag.lag, lag.pending) for lag in await bus.lags() if lag.stream == "candles"] == [(0, 0)]

    # 6 → 7: the converter puts it at its own minute.
    convert(raw, qlib, until=None)

    calendar = (qlib / "calendars" / "1min.txt").read_text().splitlines()
    position = calendar.index("2025-05-12 23:54:00")
    assert position == 1434
    for name, value in {**EXPECTED, "vwap": 1069603.34883 / 10.4037}.items():
        content = (qlib / "features" / "btc_usdt" / f"{name}.1min.bin").read_bytes()
        assert content == struct.pack("<ff", position, value)
    assert (qlib / "instruments" / "all.txt").read_text() == "BTC_USDT\t2025-05-12 00:00:00\t2025-05-12 23:59:59\n"
