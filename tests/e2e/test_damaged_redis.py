"""Valkey without Docker: a file that is damaged in the middle keeps it down no longer than it takes to see that."""

import pytest

from cli.stack import Stack
from tests.support.builders import wait_for

pytestmark = [pytest.mark.proof, pytest.mark.invariant(11), pytest.mark.timeout(900)]
MARKET = ["--symbols", "3", "--seed", "5", "--start", "2026-03-01T00:10:00", "--speed", "60"]
SETTINGS = {"TOP_N": "3", "BACKFILL_DAYS": "0", "FLUSH_SECONDS": "1", "COMPACT_EVERY": "0.1"}

_LONG = 50_000
"""Bytes."""


def test_a_redis_file_that_is_damaged_in_the_middle_is_put_aside_and_everything_heals(tmp_path):
    """Invariant 11: it comes back by itself, with the universe and with new candles."""
    with Stack(tmp_path / "run", SETTINGS, simulator=MARKET) as stack:
        files = stack.folder / "valkey" / "appendonlydir"

        def stored():
            return sum(path.stat().st_size for path in (stack.data_dir / "kline_1m").glob("date=*/*.parquet"))

        wait_for(lambda: stored() > 0 and (stack.data_dir / "rankings.json").exists(), 60)
        # Of a short file the damage reaches to the end: that is cut off at the start, as after a crash.
        wait_for(lambda: sum(path.stat().st_size for path in files.glob("*.aof")) > _LONG, 60)
        stack.stop_program("valkey")
        for path in files.glob("*.aof"):
            content = bytearray(path.read_bytes())
            middle = len(content) // 2
            content[middle : middle + 2000] = b"x" * 2000
            path.write_bytes(content)
        stack.start_program("valkey")

        said = wait_for(stack.mend_redis, 60, every=0.2)

        assert "was damaged and lies in" in said
        assert list((stack.folder / "valkey.damaged" / "appendonlydir").glob("*.aof"))
        before = stored()
        wait_for(lambda: members(stack) == 3 and stored() > before, 60, every=0.2)


def members(stack):
    try:
        return len(stack.ask_api("/universe")["members"])
    except OSError:  # the api says 503 while Redis is away
        return 0
