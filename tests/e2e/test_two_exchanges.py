"""A second exchange beside OKX: ranked, collected, healed, stored and converted, with no edit but one registry line.

It lists BTC_USDT, too, spells everything otherwise, acknowledges whole requests, has no closed flag, settles every
hour and shows so in its history only. One minute in seven it never pushes. A channel of trades, which the product does
not have, is collected beside its candles.
"""

import itertools
import json
import subprocess
import sys
from contextlib import ExitStack
from datetime import datetime

import numpy as np
import polars as pl
import pytest

from cli.machine import free_port
from cli.stack import Stack
from proofs.judges.bins import read_bin, read_calendar
from proofs.judges.recorded_qlib import RESEARCH_PYTHON
from proofs.judges.stored import read_settlements, read_stored
from tests.support.builders import wait_for
from tests.support.other_exchange.market import PAIRS, PERIOD, Market, is_pushed
from tests.support.simulator import ROOT

pytestmark = [pytest.mark.proof, pytest.mark.invariant(2), pytest.mark.timeout(900)]

SPEED = 60
MARKET = ["--symbols", "3", "--seed", "7", "--start", "2026-03-01T07:52:00", "--speed", str(SPEED)]
SETTINGS = {"TOP_N": "all", "BACKFILL_DAYS": "1", "FLUSH_SECONDS": "1", "COMPACT_EVERY": "0.1", "CONVERT_EVERY": "5"}
SITE = ROOT / "tests" / "support" / "other_exchange" / "site"
OKX, OTHER = "BTC_USDT", "BTC_USDT.OTHER"
OTHERS = {f"{pair.replace('/', '_').upper()}.OTHER": pair for pair in PAIRS}
MINUTE_MS = 60_000


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """Run a stack on OKX, and the market, a ranker and a collector of the other exchange beside it."""
    settings = SETTINGS | {"PYTHONPATH": f"{SITE}:{ROOT}"}
    with ExitStack() as held:
        stack = held.enter_context(Stack(tmp_path_factory.mktemp("two"), settings, simulator=MARKET))
        rest, stream = free_port(), free_port()
        now = stack.ask_simulator("/sim/clock")["now_ms"] / 1000
        env = {name: value for name, value in stack.env.items() if name != "OKX_CA_FILE"} | {
            "EXCHANGE": "other",
            "OKX_REST_URL": f"http://127.0.0.1:{rest}",
            "OKX_WS_URL": f"wss://127.0.0.1:{stream}/all",
            "CHANNELS": "candles,funding,trades",
            "RANKER_METRICS_PORT": "0",
            "COLLECTOR_METRICS_PORT": "0",
        }
        market = [str(rest), str(stream), str(now), str(SPEED)]
        for name, arguments in (
            ("tests.support.other_exchange.market", market),
            ("services.ranker", []),
            ("services.collector", []),
        ):
            log = held.enter_context((stack.folder / f"other-{name.rpartition('.')[2]}.log").open("wb"))
            command = [sys.executable, "-m", name, *arguments]
            process = subprocess.Popen(command, cwd=stack.directory, env=env, stdout=log, stderr=log)
            held.callback(process.wait, 30)
            held.callback(process.terminate)
        yield stack


def stored(stack, symbol):
    """Return the candles of a symbol that are on disk: opens in ms, values, and which of them came live."""
    found, unreadable = read_stored(stack.data_dir, symbol)
    assert not unreadable
    return found


def test_every_minute_of_the_other_exchange_is_stored_as_it_was_traded_there(stack):
    """Pushed ones and healed ones, the same values, none doubled and none missing in between."""
    wait_for(lambda: all(stored(stack, symbol).live.sum() > 20 for symbol in OTHERS), 120)
    for symbol, pair in OTHERS.items():
        wait_for(lambda symbol=symbol: _gapless(stored(stack, symbol).opens), 60)
        found = stored(stack, symbol)
        bars = np.array([[float(value) for value in Market.bar(pair, int(at) // 1000)] for at in found.opens])
        for column, name in enumerate(("open", "high", "low", "close", "volume")):
            assert np.array_equal(found.values[name], bars[:, column]), (symbol, name)
        assert not found.live[found.opens // MINUTE_MS % 7 == 0].any()


def _gapless(opens):
    return len(opens) > 400 and bool((np.diff(opens) == MINUTE_MS).all())


def test_its_settled_rates_are_stored_once_each_also_those_that_nothing_shows_but_its_history(stack):
    """The first of them are there at the start; what is settled later no message shows, and no roll."""
    began = stack.ask_simulator("/sim/clock")["now_ms"]
    later = -(-began // (PERIOD * 1000)) * PERIOD * 1000
    settled = wait_for(lambda: _with(read_settlements(stack.data_dir).get(OTHER, {}), later), 600)

    assert {at % (PERIOD * 1000) for at in settled} == {0}
    assert np.array_equal(np.diff(sorted(settled)), [PERIOD * 1000] * (len(settled) - 1))
    assert settled == {at: [float(Market.rate("btc/usdt", at // 1000))] for at in settled}


def _with(settled, at):
    return settled if at in settled else None


@pytest.mark.invariant(7)
def test_a_channel_of_numbered_rows_is_stored_whole_and_its_gaps_are_found_and_healed(stack):
    """Two numbers in forty are never pushed. The channel is a declaration, a part of the collector and one line."""
    began = stack.ask_simulator("/sim/clock")["now_ms"] // MINUTE_MS
    wait_for(lambda: stack.ask_simulator("/sim/clock")["now_ms"] // MINUTE_MS > began + 45, 300)
    for symbol, pair in OTHERS.items():
        answer = wait_for(lambda symbol=symbol: _whole(stack, symbol), 120)
        found = trades(stack, symbol).filter(pl.col("trade_time") < datetime.fromisoformat(answer["until"]))
        numbers = found["trade_id"].to_numpy()
        assert len(numbers) > 4_000
        assert np.array_equal(np.diff(numbers), np.ones(len(numbers) - 1)), symbol

        minutes = found["trade_time"].dt.epoch("ms").to_numpy() // MINUTE_MS
        true = {row[0]: row for minute in np.unique(minutes).tolist() for row in Market.trades(pair, minute)}
        for number, at, price in found.select("trade_id", pl.col("trade_time").dt.epoch("s"), "price").iter_rows():
            assert (at, price) == (true[number][1], float(true[number][2]))

        pushed = np.array([is_pushed(number) for number in numbers.tolist()])
        live = (found["source"] == "ws").to_numpy()
        assert live.sum() > 60
        assert not live[~pushed].any()
        assert (~pushed & (numbers > numbers[live].min())).sum() >= 3, "no gap came up while rows were pushed"
        counted = answer["total"]
        assert counted["absent"] == counted["refused"] == 0
        assert counted["received"] > 20
        assert counted["healed"] > 50


def trades(stack, symbol):
    """Return the stored trades of a symbol, by number."""
    files = sorted(stack.data_dir.glob(f"trades/date=*/{symbol}_*.parquet"))
    return pl.concat([pl.read_parquet(file) for file in files]).sort("trade_id")


def _whole(stack, symbol):
    """Return what the api counts of the trades of a symbol that are not on their way, once none is missing."""
    answer = stack.ask_api(f"/ledger?dataset=trades&symbol={symbol}")
    return None if answer["total"]["missing"] else answer


def test_each_exchange_has_its_own_universe(stack):
    def lines(market):
        path = stack.qlib_dir / "instruments" / f"{market}.txt"
        return {line.split("\t")[0] for line in path.read_text().splitlines()} if path.exists() else set()

    wait_for(lambda: lines("other_top50") == OTHERS.keys(), 120)

    assert OKX in lines("top50")
    assert not any(symbol.endswith(".OTHER") for symbol in lines("top50"))
    assert {OKX, OTHER} <= lines("all")
    assert json.loads((stack.data_dir / "top50_symbols.other.json").read_text())


def test_two_instruments_of_one_name_come_out_of_qlib_each_with_its_own_values(stack):
    """By the bins, and by the real pyqlib."""
    wait_for((stack.qlib_dir / "features" / OTHER.lower() / "close.1min.bin").exists, 120)
    calendar = read_calendar(stack.qlib_dir, "1min")
    closes = {}
    for symbol in (OKX, OTHER):
        found = read_bin(stack.qlib_dir, symbol, "close", "1min")
        opens = calendar[found.first : found.end]
        closes[symbol] = dict(zip(opens.tolist(), found.values.tolist(), strict=True))
    other = {at: value for at, value in closes[OTHER].items() if not np.isnan(value)}
    assert len(other) > 400
    for at, value in itertools.islice(other.items(), 0, None, 7):
        assert value == np.float32(Market.bar("btc/usdt", at // 1000)[3])
        assert closes[OKX].get(at) != value

    assert _of_pyqlib(stack.qlib_dir) == {OKX: True, OTHER: True}


def _of_pyqlib(qlib_dir):
    program = (
        "import json, sys, qlib; from qlib.data import D; from qlib.constant import REG_CN\n"
        "qlib.init(provider_uri=sys.argv[1], region=REG_CN, kernels=1)\n"
        "frame = D.features(sys.argv[2:], ['$close'], freq='1min')['$close']\n"
        "print(json.dumps({name: bool(frame.loc[name].notna().sum() > 400) for name in sys.argv[2:]}))"
    )
    command = [RESEARCH_PYTHON, "-c", program, qlib_dir, OKX, OTHER]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(answer.stdout.splitlines()[-1])
