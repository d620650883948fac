"""What an exchange may call a swap: collected, stored and converted where the name is safe, said where it is not."""

import json

import numpy as np
import pytest

from cli.stack import Stack
from proofs.judges.bins import read_bin
from tests.support.builders import wait_for
from tests.support.running import Running

pytestmark = [pytest.mark.proof, pytest.mark.invariant(12), pytest.mark.timeout(900)]
KEPT = {
    "币安人生-USDT-SWAP": "币安人生_USDT",
    "牛-USDT-SWAP": "牛_USDT",
    "kPEPE-USDT-SWAP": "kPEPE_USDT",
    "1000000BABYDOGE-USDT-SWAP": "1000000BABYDOGE_USDT",
    f"{'LONG' * 10}-USDT-SWAP": f"{'LONG' * 10}_USDT",
    "ÖL-USDT-SWAP": "ÖL_USDT",
}
REFUSED = ["A B-USDT-SWAP", "../../ETC-USDT-SWAP", "😀-USDT-SWAP", f"{'牛' * 90}-USDT-SWAP"]
CLASH = "btc-USDT-SWAP"
MARKET = ["--symbols", "2", "--seed", "5", "--start", "2026-03-01T23:40:00", "--speed", "60"]
SETTINGS = {"TOP_N": "all", "BACKFILL_DAYS": "0", "FLUSH_SECONDS": "1", "COMPACT_EVERY": "0.1", "CONVERT_EVERY": "5"}


def test_odd_names_are_collected_and_converted_and_unusable_ones_refused_by_name(tmp_path):
    """Invariant 12: a name that cannot be a file stops neither the ranking nor the other instruments."""
    names = tmp_path / "names.json"
    names.write_text(json.dumps([*KEPT, *REFUSED, CLASH]), encoding="utf-8")
    with Stack(tmp_path / "run", SETTINGS, simulator=[*MARKET, "--names", str(names)]) as stack:
        running = Running(stack, tuple(KEPT.values()))
        begin = running.until_live()
        running.until_whole(begin)
        wait_for(lambda: all(is_converted(stack, symbol) for symbol in KEPT.values()), 60, every=0.5)

        symbols = [path.stem.rsplit("_", 1)[0] for path in (stack.data_dir / "kline_1m").glob("date=*/*.parquet")]
        letters = json.dumps(stack.ask_api("/dead-letters"), ensure_ascii=False)

    assert set(symbols) >= {*KEPT.values(), "BTC_USDT"}
    assert "btc_USDT" not in symbols
    assert "btc_USDT and BTC_USDT differ in nothing but case" in letters
    assert [inst_id for inst_id in REFUSED if inst_id not in letters] == []


def is_converted(stack, symbol):
    found = read_bin(stack.qlib_dir, symbol, "close", "1min")
    return found is not None and bool(np.isfinite(found.values).any())
