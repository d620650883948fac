"""The audit against the real exchange protocol, a real Redis and the real writer process."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
import redis as plain_redis

from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate
from shared.datasets.ledger import Verdict
from shared.exchanges.okx.candles import candle_of
from shared.exchanges.okx.settlements import settlements_of
from shared.grid import MINUTE, to_ms
from shared.ledger.day import from_text
from shared.ledger.minutes import FULL_DAY
from shared.storage.layout import Partition
from shared.storage.parquet import read_rows
from tests.support.builders import at, store, wait_for
from tests.support.simulator import ROOT, Simulator

START = "2025-06-10T12:00:30"
BEGIN, END = at("2025-06-10 07:00"), at("2025-06-10 11:00")
SETTLED = at("2025-06-10 08:00")
MINUTES = 235
"""Four hours, but for the halt."""
SYMBOL, INST_ID = "BTC_USDT", "BTC-USDT-SWAP"
DAY = BEGIN.date()
IMPATIENT = """
import sys
from importlib import import_module
from services.writer.audit import auditor
from shared.exchanges.okx import rest
from shared.runtime.command import run

rest.SHARES |= {"audit": 0.4, "audit by hand": 0.4}
auditor.DENIAL_SECONDS = auditor._LOOK_SECONDS = 0.1
run(import_module(sys.argv.pop(1)).main)
"""
"""Runs a module that audits. It asks as often as is allowed, and leaves the exchange no time for second thoughts."""
HALTED = at("2025-06-10 10:00")


@pytest.fixture
def exchange(tmp_path):
    """Start one on which BTC stood still for five minutes of the range: these minutes never were."""
    changes = tmp_path / "changes.json"
    halt = [("suspend", HALTED), ("resume", HALTED + 5 * MINUTE)]
    changes.write_text(json.dumps([{"kind": kind, "at": to_ms(when), "instId": INST_ID} for kind, when in halt]))
    with Simulator.start(symbols=5, seed=3, start=START, extra=["--events", str(changes)]) as running:
        yield running


def truth(exchange):
    """Return what a perfect writer has stored of the range."""
    now, received = at("2025-06-10 12:00"), datetime.now(UTC) - timedelta(hours=1)
    rows = exchange.truth_candles(INST_ID, to_ms(BEGIN), to_ms(END))
    candles = [candle_of(INST_ID, row, source="ws", receive_time=received, exchange_now=now) for row in rows]
    settled = exchange.truth_funding(INST_ID, to_ms(BEGIN - timedelta(days=2)), to_ms(END))[::-1]
    rates, *_ = settlements_of("BTC_USDT", settled, known_time=at("2025-06-10 11:00"), receive_time=received)
    return candles, rates


def changed(row, **values):
    """Return a row with other values."""
    return type(row)(**{name: getattr(row, name) for name in row.__struct_fields__} | values)


def a_day_with_faults(exchange):
    """Return rows as a writer may have stored them that went wrong in every way, and the ledger's verdicts."""
    candles, settlements = truth(exchange)
    by_open = {candle.open_time: candle for candle in candles}
    wrong, missing, absent = BEGIN + 20 * MINUTE, BEGIN + 30 * MINUTE, BEGIN + 31 * MINUTE
    invented = HALTED + 2 * MINUTE
    by_open[invented] = changed(by_open[BEGIN], open_time=invented)
    by_open[wrong] = changed(by_open[wrong], close=by_open[wrong].open, contracts=by_open[wrong].contracts + 1)
    del by_open[missing], by_open[absent]
    rates = {settled.funding_time: settled for settled in settlements}
    rates[SETTLED] = changed(rates[SETTLED], funding_rate=rates[SETTLED].funding_rate + 0.0001)
    verdicts = [
        Verdict(exchange="okx", verdict=verdict, symbols=(SYMBOL,), begin=begin, end=end, known_time=end)
        for verdict, begin, end in (
            ("wanted", BEGIN, END),
            ("absent", absent, absent + MINUTE),
            ("halted", HALTED, HALTED + 5 * MINUTE),
        )
    ]
    return by_open, rates, verdicts, (wrong, missing, absent, invented)


class Installation:
    """A folder of raw data, a writer on it, and the audit as a command."""

    def __init__(self, exchange, redis_url, folder, **settings):
        self.root = folder / "okx_data"
        self.folder = folder
        self.redis = plain_redis.Redis.from_url(redis_url, decode_responses=True)
        self.environment = os.environ | {
            "REDIS_URL": redis_url,
            "DATA_DIR": str(self.root),
            "FLUSH_SECONDS": "0.1",
            "COMPACT_EVERY": "0.02",
            "OKX_REST_URL": exchange.rest_url,
            "OKX_CA_FILE": str(exchange.ca_file),
            "WRITER_METRICS_PORT": "0",
            "AUDIT_PAGES_PER_HOUR": "0",
            "LOG_FORMAT": "json",
            **settings,
        }
        self.log = (folder / "writer.log").open("a")
        self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.log.close()
        self.redis.close()

    def start_writer(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", IMPATIENT, "services.writer.__main__"],
            cwd=ROOT,
            env=self.environment,
            stderr=self.log,
        )

    def stop_writer(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def writer_has_stored(self):
        """Return whether everything on the bus is durable."""
        for stream in ("candles", "funding", "ledger"):
            if self.redis.exists(stream):
                groups = {group["name"]: group for group in self.redis.xinfo_groups(stream)}
                if "writer" not in groups or groups["writer"]["pending"] or groups["writer"]["lag"]:
                    return False
        return bool(self.redis.exists("ledger:ready"))

    def audit(self, *arguments):
        """Run the command on the range; return its exit code and what it wrote as JSON."""
        report = self.folder / "report.json"
        report.unlink(missing_ok=True)
        window = ("--begin", BEGIN.isoformat(), "--end", (END + timedelta(hours=0.5)).isoformat())
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                IMPATIENT,
                "services.writer.audit.__main__",
                *window,
                "--json",
                str(report),
                *arguments,
            ],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        self.printed = done.stdout + done.stderr
        return done.returncode, json.loads(report.read_text()) if report.exists() else None

    def candles(self):
        return read_rows(Candle, Partition(Candle.dataset, DAY, SYMBOL).path(self.root)).to_pylist()

    def opens(self):
        return {row["open_time"] for row in self.candles()}

    def rates(self):
        table = read_rows(FundingRate, Partition(FundingRate.dataset, DAY).path(self.root))
        return {row["funding_time"]: row["funding_rate"] for row in table.to_pylist()}


async def test_what_is_stored_as_the_exchange_has_it_is_clean(exchange, bus, redis_url, tmp_path):
    with Installation(exchange, redis_url, tmp_path) as here:
        candles, settlements = truth(exchange)
        store(here.root, [*candles, *settlements])
        here.start_writer()
        wait_for(here.writer_has_stored)

        code, report = here.audit()

        assert (code, report["minutes"], report["differences"]) == (0, MINUTES, []), here.printed
        assert report["settlements"] == sum(BEGIN <= settled.funding_time < END for settled in settlements) > 0


@pytest.mark.invariant(2)
@pytest.mark.invariant(7)
async def test_everything_wrong_is_found_reported_and_repaired(exchange, bus, redis_url, tmp_path):
    """Invariants 2 and 7: a wrong candle, a missing one, one wrongly called absent, an invented one, a wrong rate."""
    by_open, rates, verdicts, (wrong, missing, absent, invented) = a_day_with_faults(exchange)
    with Installation(exchange, redis_url, tmp_path) as here:
        store(here.root, [*by_open.values(), *rates.values()])
        store(here.root, [changed(by_open[BEGIN], symbol="NOSUCH_USDT")])
        here.start_writer()
        await bus.publish(verdicts)
        wait_for(here.writer_has_stored)

        first = here.audit()
        reported = {difference["at"]: difference for difference in first[1]["differences"]}
        assert first[0] == 1, here.printed
        assert {instant: one["kind"] for instant, one in reported.items()} == {
            wrong.isoformat(): "changed",
            missing.isoformat(): "missing",
            absent.isoformat(): "absent",
            invented.isoformat(): "invented",
            SETTLED.isoformat(): "rate",
        }
        assert set(reported[wrong.isoformat()]["fields"]) == {"close", "contracts"}
        assert first[1]["unknown_symbols"] == ["NOSUCH_USDT"]
        assert len(here.candles()) == MINUTES - 1

        assert here.audit("--repair")[0] == 1
        wait_for(lambda: here.writer_has_stored() and invented not in here.opens(), 90)

        code, report = here.audit()
        assert (code, report["mismatches"], report["minutes"]) == (0, {}, MINUTES), here.printed
        assert {row["open_time"]: row["source"] for row in here.candles()}[wrong] == "rest"
        known = from_text((await bus.ledger([DAY]))[DAY][SYMBOL])
        assert known.stored.bit_count() == MINUTES
        assert not known.missing(FULL_DAY)
        assert here.stop_writer() == 0


@pytest.mark.invariant(7)
@pytest.mark.parametrize("variant", ["page", "holes"])
async def test_a_stored_minute_that_was_called_absent_stays_unless_the_exchange_denies_it_again_and_again(
    exchange, bus, redis_url, tmp_path, variant
):
    """Invariant 7: answers that lack rows delete nothing."""
    with Installation(exchange, redis_url, tmp_path) as here:
        store(here.root, truth(exchange)[0])
        exchange.fault("empty", variant=variant, count=3)
        here.start_writer()
        await bus.publish(
            [Verdict(exchange="okx", verdict="absent", symbols=(SYMBOL,), begin=BEGIN, end=END, known_time=END)]
        )

        wait_for(lambda: "audit" in json.loads(here.redis.get("heartbeat:writer") or "{}").get("details", {}), 60)

        assert _asked(exchange) >= 2
        assert len(here.opens()) == MINUTES
        assert here.stop_writer() == 0


def _asked(exchange):
    return exchange.stats()["requests"]["/api/v5/market/history-candles"]


@pytest.mark.invariant(12)
async def test_a_hole_in_one_answer_is_no_mismatch(exchange, redis_url, tmp_path):
    """Invariant 12."""
    with Installation(exchange, redis_url, tmp_path) as here:
        store(here.root, truth(exchange)[0])
        here.start_writer()
        wait_for(here.writer_has_stored)
        exchange.fault("empty", variant="holes", count=1)

        code, report = here.audit()

        assert (code, report["differences"]) == (0, []), here.printed


async def test_without_an_exchange_nothing_was_audited(exchange, redis_url, tmp_path):
    with Installation(exchange, redis_url, tmp_path, OKX_REST_URL="http://127.0.0.1:9") as here:
        store(here.root, truth(exchange)[0])

        assert here.audit()[0] == 3
        assert "could not audit" in here.printed


@pytest.mark.invariant(12)
async def test_what_the_exchange_corrects_later_is_found_and_corrected_by_itself(exchange, bus, redis_url, tmp_path):
    """Invariant 12: and a stop in the middle of it all is clean."""
    with Installation(exchange, redis_url, tmp_path, AUDIT_PAGES_PER_HOUR="600") as here:
        candles, settlements = truth(exchange)
        store(here.root, [*candles, *settlements])
        late = at("2025-06-10 10:30")
        exchange.fault("corrected", instId=INST_ID, delay=(at(START.replace("T", " ")) - late).total_seconds())
        wait_for(lambda: [fault["kind"] for fault in exchange.faults()] == ["corrected"])

        here.start_writer()
        wait_for(lambda: "rest" in {row["source"] for row in here.candles()}, 60)

        healed = [row for row in here.candles() if row["source"] == "rest"]
        now = {candle.open_time: candle for candle in truth(exchange)[0]}
        assert {row["open_time"]: row["close"] for row in healed} == {
            row["open_time"]: now[row["open_time"]].close for row in healed
        }
        wait_for(lambda: _audited(here.redis)["corrected"] == 1)
        assert _audited(here.redis)["mismatches"] == 1
        assert here.stop_writer() == 0
        assert '"kind": "changed"' in (tmp_path / "writer.log").read_text()


def _audited(server):
    beat = json.loads(server.get("heartbeat:writer") or "{}")
    return beat.get("details", {}).get("audit", {"corrected": 0})
