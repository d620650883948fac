"""The real converter process: waits for holes to be healed, patches what comes late."""

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from shared.bus import Heartbeat
from shared.coverage import FULL_DAY
from shared.grid import DAY
from shared.ledger import DayLedger, to_text
from tests.support.builders import DAY_0, MIDNIGHT, a_candle, minute, store, until
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


async def tell(bus, ledger):
    await bus.set_ledger(DAY_0, {"BTC_USDT": to_text(ledger)})


@pytest.mark.invariant(7)
@pytest.mark.invariant(9)
async def test_a_day_with_a_hole_waits_for_it_and_what_comes_later_is_patched_in(bus, converter, tmp_path):
    """Invariants 7 and 9."""
    raw, qlib = tmp_path / "okx_data", tmp_path / "qlib_data"
    store(raw, [a_candle(open_time=minute(number)) for number in numbers()])
    hole = DayLedger(wanted=FULL_DAY, received=FULL_DAY & ~(1 << HOLE))
    await tell(bus, hole)
    await bus.set_watermarks({"written_until": MIDNIGHT + DAY})
    await bus.beat(a_heartbeat("collector", details={"history_complete": True}), 60)

    await until_details(bus, lambda details: "1 minutes before 2025-04-06" in details.get("waiting", ""))
    assert not (qlib / "calendars").exists()

    await tell(bus, hole | DayLedger(absent=1 << HOLE))
    await until_details(bus, lambda details: details.get("converted_until", "").startswith("2025-04-06T00:00"))
    assert minute(HOLE) not in values(qlib, "BTC_USDT", "open")

    store(raw, [a_candle(open_time=minute(HOLE), price=7.0)])
    await until(lambda: values(qlib, "BTC_USDT", "open").get(minute(HOLE)) == 7.0)
    assert len(values(qlib, "BTC_USDT", "open")) == 1440


async def until_details(bus, condition):
    """Wait until the converter's heartbeat tells something."""
    async with asyncio.timeout(30):
        while not ((beat := await bus.heartbeat("converter")) and condition(beat.details)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
