"""The main job, small: a recording enters as OKX messages and comes out of Qlib, value for value, kill -9 or not."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]
FIRST = datetime(2024, 2, 28, 19, 17, tzinfo=UTC)
MINUTES = 9 * 60


def a_recording(folder: Path) -> Path:
    """Write what somebody else recorded: tiny prices, a hole, a late listing, jittery settlements, into a leap day."""
    dice = np.random.default_rng(11)
    candles = [
        *_candles("1000PEPEUSDT", 1.23e-6, range(MINUTES), dice),
        *_candles("BTC/USDT:USDT", 61_234.5, [m for m in range(MINUTES) if not 200 <= m < 230], dice),
        *_candles("late_USDT", 0.5, range(150, MINUTES), dice),
    ]
    dice.shuffle(candles)
    settled = [
        {"symbol": name, "timestamp": at + timedelta(milliseconds=int(dice.integers(0, 9))), "funding_rate": rate}
        for name, rates in {"1000PEPEUSDT": (0.0003, -0.0001), "BTC/USDT:USDT": (0.0001, 0.0002)}.items()
        for at, rate in zip(
            (datetime(2024, 2, 28, 16, tzinfo=UTC), datetime(2024, 2, 29, tzinfo=UTC)), rates, strict=True
        )
    ]
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(candles), folder / "candles_1m.parquet")
    pq.write_table(pa.Table.from_pylist(settled), folder / "funding.parquet")
    return folder


def _candles(symbol: str, price: float, minutes, dice) -> list[dict]:
    rows = []
    for minute in minutes:
        opened, close = price, price * float(np.exp(dice.normal(0, 1e-3)))
        price = close
        rows.append(
            {
                "symbol": symbol,
                "timestamp": FIRST + timedelta(minutes=minute),
                "open": opened,
                "high": max(opened, close) * 1.0001,
                "low": min(opened, close) * 0.9999,
                "close": close,
                "volume": float(dice.lognormal(3, 2)),
            }
        )
    return rows


@pytest.mark.proof
@pytest.mark.invariant(4)
@pytest.mark.parametrize("options", [["--kill"], ["--top-n", "1"]], ids=["killed", "one-member"])
def test_a_recording_comes_out_of_qlib_value_for_value(tmp_path: Path, options: list[str]) -> None:
    data = a_recording(tmp_path / "recording")

    replay = subprocess.run(
        [
            sys.executable,
            "-m",
            "proofs.replay",
            "--data",
            data,
            "--speed",
            "600",
            "--folder",
            tmp_path / "run",
            *options,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert replay.returncode == 0, replay.stdout + replay.stderr[-3000:]
    assert "no difference" in replay.stdout


def test_a_folder_without_a_recording_is_refused_by_its_whole_name(tmp_path: Path) -> None:
    wider_than_a_window = tmp_path / ("recordings-" * 10)
    replay = subprocess.run(
        [sys.executable, "-m", "proofs.replay", "--data", wider_than_a_window, "--folder", tmp_path / "run"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert replay.returncode == 2
    assert str(wider_than_a_window / "candles_1m.parquet") in replay.stdout
