"""A provider folder made by the converter (in its own interpreter), read by the real pyqlib (in this one)."""

import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from shared.grid import DAY
from tests.support.builders import MIDNIGHT, a_candle, a_funding_rate, a_ranking, minute, store

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "research"))
DAYS = 3

#: Minutes of each symbol, counted from MIDNIGHT.
MINUTES = {
    "BTC_USDT": range(DAYS * 1440),
    "1000PEPE_USDT": [*range(300), *range(420, 1500), *range(2000, DAYS * 1440)],  # gaps, one over midnight
    "NEW_USDT": range(1440 + 723, DAYS * 1440),  # listed in the middle of a day
    "GONE_USDT": range(1440 + 77),  # delisted in the middle of a day
    "BTC_USD_UM": range(0, DAYS * 1440, 3),
}
#: Names of other scripts, of small letters, as long as any, and one that Windows cannot have as a file.
ODD = ("龙_USDT", "kPEPE_USDT", "ไทย_USDT", "ß_USDT", "A" * 40 + "_USDT", "CON")
MINUTES |= {symbol: range(90 * number, DAYS * 1440) for number, symbol in enumerate(ODD)}
PRICES = {"BTC_USDT": 60_000.0, "1000PEPE_USDT": 0.0123, "NEW_USDT": 3.0, "GONE_USDT": 1.0, "BTC_USD_UM": 61_000.0}
PRICES |= {symbol: 5.0 + number for number, symbol in enumerate(ODD)}
#: Qlib takes the first for KPEPE's other spelling, and reads the second as no name at all.
REFUSED = {"KPEPE_USDT": range(2000, 2100), "NA": range(100)}
#: (when, members)
RANKINGS = [
    (minute(-5), ("BTC_USDT", "GONE_USDT")),
    (minute(480), ("BTC_USDT", "1000PEPE_USDT")),
    (minute(960), ("1000PEPE_USDT", "GONE_USDT")),
    (minute(1440), ("BTC_USDT", "1000PEPE_USDT")),
    (minute(2880), ("BTC_USDT", "NEW_USDT")),
]
RATES = {minute(number): number / 1e6 for number in (0, 480, 960, 1440, 2400, 3000)}


def price_at(symbol: str, number: int) -> float:
    """Return the open of a minute: another one every minute, so that a shift shows."""
    return PRICES[symbol] * (1 + number / 10_000)


@dataclass(frozen=True)
class Provider:
    """The folder, and what was put into it."""

    folder: Path
    candles: dict[str, dict[datetime, float]]
    """Symbol → open time → opening price."""

    @property
    def begin(self) -> datetime:
        """Return the first minute."""
        return MIDNIGHT

    @property
    def end(self) -> datetime:
        """Return the end of the last minute."""
        return MIDNIGHT + DAYS * DAY


@pytest.fixture(scope="session")
def provider(tmp_path_factory) -> Provider:
    """Store raw days and convert them with the converter's own interpreter."""
    folder = tmp_path_factory.mktemp("provider")
    raw, qlib_dir = folder / "okx_data", folder / "qlib_data"
    for symbol, numbers in MINUTES.items():
        store(raw, [a_candle(symbol, minute(number), price_at(symbol, number)) for number in numbers])
    for symbol, numbers in REFUSED.items():
        store(raw, [a_candle(symbol, minute(number), 1.0) for number in numbers])
    for when, members in RANKINGS:
        store(raw, a_ranking(*members, ranked_time=when, others=["OTHER_USDT"]).ranks)
    store(raw, [a_funding_rate("BTC_USDT", when, rate) for when, rate in RATES.items()])
    interpreter = os.environ.get("QLIB_CRYPTO_PYTHON", str(ROOT / ".venv" / "bin" / "python"))
    settings = {"DATA_DIR": str(raw), "QLIB_DIR": str(qlib_dir), "REDIS_URL": "redis://127.0.0.1:9/0", "LC_ALL": "C"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | settings
    process = subprocess.run(
        [interpreter, "-m", "services.converter", "--once"],
        cwd=ROOT,
        env=environment,
        check=False,
        timeout=120,
        capture_output=True,
    )
    log = process.stderr.decode()
    assert process.returncode == 1, log
    assert all(f"{symbol}" in log for symbol in REFUSED), log
    candles = {
        symbol: {minute(number): price_at(symbol, number) for number in numbers} for symbol, numbers in MINUTES.items()
    }
    return Provider(qlib_dir, candles)


@pytest.fixture(scope="session")
def data(provider):
    """Give Qlib's data interface, initialised as a user would: a plain string, region cn."""
    import qlib
    from qlib.constant import REG_CN
    from qlib.data import D

    qlib.init(provider_uri=str(provider.folder), region=REG_CN, kernels=1)
    return D
