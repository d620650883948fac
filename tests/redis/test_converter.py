"""The real converter process: waits for holes to be healed, patches what comes late."""

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from services.converter.convert import convert
from services.converter.service import Converter
from services.converter.settings import ConverterSettings
from shared.bus.heartbeat import Heartbeat
from shared.clock import ExchangeClock
from shared.datasets.ledger import LedgerRow
from shared.exchanges.okx.rest import OkxClient
from shared.grid import DAY
from shared.ledger.day import DayLedger, to_text
from shared.ledger.minutes import FULL_DAY
from shared.runtime.service import Health, Service
from shared.storage.layout import Partition
from tests.support.builders import DAY_0, MIDNIGHT, a_candle, minute, store, until
from tests.support.patience import patience
from tests.support.provider import values
from tests.support.simulator import ROOT, Simulator

HOLE = 700


@pytest.fixture
def converter(redis_url, tmp_path):
    """Run a converter half a minute after the midnight that ends DAY_0."""
    with Simulator.start(symbols=1, start="2025-04-06T00:00:30") as exchange:
        environment = os.environ | {
            "REDIS_URL": redis_url,
            "DATA_DIR": str(tmp_path / "okx_data"),
            "QLIB_DIR": str(tmp_path / "qlib_data"),
            "OKX_REST_URL": exchange.rest_url,
            "OKX_CA_FILE": str(exchange.ca_file),
            "PATCH_EVERY": "1",
            "CONVERTER_METRICS_PORT": "0",
        }
        process = subprocess.Popen([sys.executable, "-m", "services.converter"], cwd=ROOT, env=environment)
        yield process
        process.kill()
        process.wait()


def numbers():
    return [number for number in range(1440) if number != HOLE]


def a_heartbeat(service, **changes):
    now = datetime.now(UTC)
    fields = {"state": "ok", "reason": "works", "host": "box", "pid": 1, "started": now, "beaten": now}
    return Heartbeat(service=service, **fields | changes)


async def publish_ledger(bus, ledger):
    await bus.set_ledger(DAY_0, {"BTC_USDT": to_text(ledger)})


@pytest.mark.invariant(7)
@pytest.mark.invariant(9)
async def test_a_day_with_a_hole_waits_for_it_and_what_comes_later_is_patched_in(bus, converter, tmp_path):
    """Invariants 7 and 9."""
    raw, qlib = tmp_path / "okx_data", tmp_path / "qlib_data"
    store(raw, [a_candle(open_time=minute(number)) for number in numbers()])
    hole = DayLedger(wanted=FULL_DAY, received=FULL_DAY & ~(1 << HOLE))
    await publish_ledger(bus, hole)
    await bus.set_watermarks({"written_until": MIDNIGHT + DAY})
    await bus.beat(a_heartbeat("collector", details={"history_complete": True}), 3600)

    await until_details(bus, lambda details: "1 minutes before 2025-04-06" in details.get("waiting", ""))
    assert not (qlib / "calendars").exists()

    await publish_ledger(bus, hole | DayLedger(absent=1 << HOLE))
    await until_details(bus, lambda details: details.get("converted_until", "").startswith("2025-04-06T00:00"))
    assert minute(HOLE) not in values(qlib, "BTC_USDT", "open")

    store(raw, [a_candle(open_time=minute(HOLE), price=7.0)])
    await until(lambda: values(qlib, "BTC_USDT", "open").get(minute(HOLE)) == 7.0)
    assert len(values(qlib, "BTC_USDT", "open")) == 1440


@pytest.fixture
async def service(bus):
    """Give a service that is up, with a clock that nobody needs here."""
    async with OkxClient("http://127.0.0.1:9") as exchange:
        service = Service("converter", bus, exchange, ExchangeClock(), Health(), asyncio.Event())
        yield service
        service.stop.set()


@pytest.fixture
async def late_rows(service, redis_url, tmp_path):
    """Let a converter look for what came late, every second."""
    settings = ConverterSettings(
        _env_file=None,
        redis_url=redis_url,
        data_dir=tmp_path / "okx_data",
        qlib_dir=tmp_path / "qlib_data",
        patch_every=1,
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(Converter(service, settings).watch_for_late())
        yield task
        service.stop.set()


@pytest.mark.invariant(9)
async def test_history_that_comes_late_is_taken_in_by_itself_and_keeps_no_correction_waiting(
    bus, service, late_rows, tmp_path, monkeypatch
):
    """Invariant 9: whatever of it lies before the first day waits until no more comes; what is in Qlib is mended."""
    raw, qlib = tmp_path / "okx_data", tmp_path / "qlib_data"
    store(raw, [a_candle(open_time=minute(number)) for number in range(1440, 2880)])
    convert(raw, qlib, until=None)
    store(raw, [a_candle(open_time=minute(number)) for number in range(1440)])
    store(raw, [a_candle(open_time=minute(1500), price=7.0, receive_time=minute(9999))])

    await until(lambda: values(qlib, "BTC_USDT", "open").get(minute(1500)) == 7.0)
    assert "1 symbol days of history lie before the calendar's first day" in service.health.problems["origin"]
    assert len(values(qlib, "BTC_USDT", "open")) == 1440

    monkeypatch.setattr("services.converter.history._SETTLED_SECONDS", 0.0)  # as if a minute had passed
    await bus.beat(a_heartbeat("collector", details={"history_complete": True}), 3600)
    await until(lambda: len(values(qlib, "BTC_USDT", "open")) == 2880)
    await until(lambda: service.health.problems == {})
    assert not late_rows.done()


@pytest.mark.invariant(12)
async def test_a_file_that_keeps_from_looking_for_late_rows_is_said_and_ends_nothing(service, late_rows, tmp_path):
    """Invariant 12."""
    raw, qlib = tmp_path / "okx_data", tmp_path / "qlib_data"
    store(raw, [a_candle(open_time=minute(number)) for number in range(1440)])
    store(raw, [LedgerRow(exchange="okx", symbol="BTC_USDT", day=MIDNIGHT, absent="7-7")])
    convert(raw, qlib, until=None)
    ledger = Partition("ledger", DAY_0).path(raw)
    good = ledger.read_bytes()
    ledger.write_bytes(b"torn")
    os.utime(ledger.parent)

    await until(lambda: "ledger_20250405.parquet" in service.health.problems.get("late", ""))

    ledger.write_bytes(good)
    os.utime(ledger.parent)
    await until(lambda: "late" not in service.health.problems)
    assert not late_rows.done()


@pytest.fixture
def older_day(tmp_path):
    """Lay down two days, of which Qlib has the first."""
    raw = tmp_path / "okx_data"
    store(raw, [a_candle(open_time=minute(number)) for number in range(-1440, 1440)])
    convert(raw, tmp_path / "qlib_data", until=MIDNIGHT)


@pytest.mark.invariant(9)
@pytest.mark.usefixtures("older_day", "converter")
async def test_a_correction_does_not_wait_for_a_writer_that_is_behind(bus, tmp_path):
    """Invariant 9: it is in Qlib soon, whatever keeps the day that has just ended."""
    raw, qlib = tmp_path / "okx_data", tmp_path / "qlib_data"
    await bus.set_watermarks({"written_until": MIDNIGHT + DAY / 2})
    await until_details(bus, lambda details: "writer to pass 2025-04-06" in details.get("waiting", ""))

    store(raw, [a_candle(open_time=minute(-5), price=7.0, receive_time=minute(9999))])

    await until(lambda: values(qlib, "BTC_USDT", "open").get(minute(-5)) == 7.0)
    assert len(values(qlib, "BTC_USDT", "open")) == 1440


async def until_details(bus, condition):
    """Wait until the converter's heartbeat says something."""
    async with asyncio.timeout(patience(30)):
        while not ((beat := await bus.heartbeat("converter")) and condition(beat.details)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.invariant(9)
async def test_a_minute_is_converted_as_soon_as_it_is_stored_and_no_more_often_than_asked_for(
    bus, service, redis_url, tmp_path
):
    """Invariant 9: the writer's watermark starts it, not a tick of its own."""
    raw, qlib = tmp_path / "okx_data", tmp_path / "qlib_data"
    settings = ConverterSettings(
        _env_file=None, redis_url=redis_url, data_dir=raw, qlib_dir=qlib, convert_every=1, patch_every=0
    )
    store(raw, [a_candle(open_time=minute(number)) for number in range(10)])
    await bus.set_watermarks({"written_until": minute(10)})
    async with asyncio.TaskGroup() as group:
        group.create_task(Converter(service, settings)._often())
        await until((qlib / "calendars" / "1min.txt").exists)
        assert len(values(qlib, "BTC_USDT", "open")) == 10
        for number in range(10, 13):
            store(raw, [a_candle(open_time=minute(number))])
            await bus.set_watermarks({"written_until": minute(number + 1)})
            await until(lambda number=number: len(values(qlib, "BTC_USDT", "open")) == number + 1)
        async with asyncio.timeout(patience(30)):  # said once it is visible
            while (await bus.watermarks()).get("converted_until") != minute(13):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        service.stop.set()
