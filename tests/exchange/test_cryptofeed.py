"""An independent judge: the real cryptofeed reads both channels of the simulator as it reads the exchange."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.simulator import Simulator

CLIENT = Path(__file__).with_name("cryptofeed_client.py")
SECONDS = 4
INST_IDS = {f"{base}-USDT-PERP": f"{base}-USDT-SWAP" for base in ("ADA", "1000PEPE", "LATE")}


@pytest.fixture(scope="module")
def received(recording, tmp_path_factory):
    """Listen to a replay that crosses a gap at 300 times the speed; returns the events and the truth."""
    with Simulator.start(data=recording.folder, start="2025-06-02T11:00:00", speed=300) as sim:
        done = subprocess.run(
            [sys.executable, CLIENT, sim.rest_url, sim.ws_url, sim.ca_file, str(SECONDS), *INST_IDS],
            env=os.environ
            | {"SSL_CERT_FILE": str(sim.ca_file), "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))},
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )
        truth = {symbol: sim.truth_candles(inst_id) for symbol, inst_id in INST_IDS.items()}
        stats = sim.stats()
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")], truth, stats


def test_symbols_are_loaded(received):
    (loaded,) = [event for event in received[0] if event["event"] == "symbols"]

    assert loaded["symbols"] == sorted(INST_IDS)


@pytest.mark.parametrize("symbol", INST_IDS)
def test_closed_candles_are_the_truth_without_holes(received, symbol):
    events, truth, _ = received
    candles = [event for event in events if event["event"] == "candle" and event["symbol"] == symbol]

    times = [event["open_ms"] for event in candles]
    expected = [row for row in truth[symbol] if times[0] <= int(row[0]) <= times[-1]]
    assert len(candles) > 10
    assert all(event["closed"] for event in candles)
    assert [(event["open_ms"], *event["figures"]) for event in candles] == [
        (int(row[0]), *row[1:6]) for row in expected
    ]


def test_funding_arrives_for_every_instrument(received):
    funding = [event for event in received[0] if event["event"] == "funding"]

    assert {event["symbol"] for event in funding} == set(INST_IDS)


def test_one_connection_a_channel_was_enough(received):
    stats = received[2]

    assert stats["connections_total"] == {"public": 1, "business": 1}
    assert stats["closes"] == {}
