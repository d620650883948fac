"""A recorded market: a folder with candles_1m.parquet and funding.parquet, whoever wrote it."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from services.simulator.engine.decimals import plain
from services.simulator.engine.market import HOUR_MS, MINUTE_MS, Candle, FundingPeriod, Instrument, Settlement
from services.simulator.engine.names import UnreadableNameError, inst_id_of

log = logging.getLogger(__name__)

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

CANDLES_FILE = "candles_1m.parquet"
FUNDING_FILE = "funding.parquet"
PRICE_COLUMNS = ("open", "high", "low", "close")
QUOTE_VOLUME_COLUMNS = (
    "quote_volume",
    "quote_asset_volume",
    "quoteVolume",
    "volume_quote",
    "volCcyQuote",
    "vol_ccy_quote",
    "turnover",
    "amount",
)
"""Names under which recordings keep the turnover in quote currency; the first one present is used."""

CONTRACT_EXPONENTS = {"BTC": -2, "ETH": -1, "BNB": -2, "SOL": 0, "XRP": 2, "ADA": 2, "DOGE": 3, "LTC": 0}
"""ctVal = 10 ** this for coins whose OKX contract is well known; others get about 200 quote units a contract."""

INVERSE_EXPONENT = 2
"""An inverse contract is worth 100 USD (BTC-USD-SWAP)."""

DELISTED_AFTER_MS = 10 * MINUTE_MS
"""An instrument without a minute in the last ten of the recording left the exchange; less is a missing minute."""

DELISTING_DELAY_MS = MINUTE_MS
"""From the end of the last minute to the delisting, so that its close is seen."""

DEFAULT_INTERVAL_MS = 8 * HOUR_MS
ON_THE_MINUTE_MS = 1_000
"""A candle's time may lie this far behind its minute; more means that it is no open time."""


class UnusableRecordingError(Exception):
    """A recording that cannot be replayed; the message names the file, what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class _Candles:
    open_ms: Ints
    figures: Floats
    """Rows of open, high, low, close, base volume, quote volume."""

    def between(self, first: int, last: int) -> list[Candle]:
        """Return the rows of a slice."""
        times = self.open_ms[first:last].tolist()
        return [Candle(time, *row) for time, row in zip(times, self.figures[first:last].tolist(), strict=True)]


@dataclass(frozen=True, slots=True)
class _Funding:
    funding_ms: Ints
    rate: Floats


class ReplayMarket:
    """A market that is exactly its recording: no row is invented, none is changed.

    With `delist` an instrument whose recording ends early leaves the exchange; else it stays listed, and silent.
    """

    def __init__(self, candles: dict[str, _Candles], funding: dict[str, _Funding], *, delist: bool = True) -> None:
        self._candles = candles
        self._funding = funding
        self.first_ms = min(int(rows.open_ms[0]) for rows in candles.values())
        self.last_ms = max(int(rows.open_ms[-1]) for rows in candles.values())
        self._instruments = {
            inst_id: _instrument(inst_id, rows, self.last_ms if delist else None)
            for inst_id, rows in sorted(candles.items())
        }

    @property
    def instruments(self) -> Mapping[str, Instrument]:
        """Every recorded instrument."""
        return self._instruments

    @property
    def end_ms(self) -> int | None:
        """The last recorded open time."""
        return self.last_ms

    def candles(self, inst_id: str, begin_ms: int, end_ms: int) -> list[Candle]:
        """Return the recorded minutes in [begin, end)."""
        rows = self._candles[inst_id]
        first, last = np.searchsorted(rows.open_ms, [begin_ms, end_ms])
        return rows.between(int(first), int(last))

    def newest_candles(self, inst_id: str, begin_ms: int, end_ms: int, limit: int) -> list[Candle]:
        """Return the last `limit` recorded minutes in [begin, end)."""
        rows = self._candles[inst_id]
        first, last = np.searchsorted(rows.open_ms, [begin_ms, end_ms])
        return rows.between(max(int(first), int(last) - limit), int(last))

    def settlements(self, inst_id: str, begin_ms: int, end_ms: int) -> list[Settlement]:
        """Return the recorded settlements in [begin, end)."""
        funding = self._funding.get(inst_id)
        if funding is None:
            return []
        first, last = np.searchsorted(funding.funding_ms, [begin_ms, end_ms])
        times, rates = funding.funding_ms[first:last].tolist(), funding.rate[first:last].tolist()
        return [Settlement(time, rate) for time, rate in zip(times, rates, strict=True)]

    def funding_period(self, inst_id: str, at_ms: int) -> FundingPeriod:
        """Return the period around an instant, on the recorded settlements or the grid that continues them.

        After the last recorded settlement the upcoming time moves on by the last interval, but the settled rate
        and its time stay those of the last recorded one: an unrecorded settlement is not claimed to have happened.
        """
        funding = self._funding.get(inst_id)
        if funding is None:
            return _on_grid(0, DEFAULT_INTERVAL_MS, at_ms, None, 0.0)
        times = funding.funding_ms
        index = int(np.searchsorted(times, at_ms, side="right"))
        settled = Settlement(int(times[index - 1]), float(funding.rate[index - 1])) if index else None
        if index == len(times):
            last_interval = int(times[-1] - times[-2]) if len(times) > 1 else DEFAULT_INTERVAL_MS
            return _on_grid(int(times[-1]), last_interval, at_ms, settled, float(funding.rate[-1]))
        upcoming = int(times[index])
        if index + 1 < len(times):
            following = int(times[index + 1])
        else:
            following = upcoming + (upcoming - int(times[index - 1]) if index else DEFAULT_INTERVAL_MS)
        if settled is None:
            began = _on_grid(upcoming, following - upcoming, at_ms, None, 0.0).began_ms
            return FundingPeriod(
                began, began + following - upcoming, began + 2 * (following - upcoming), None, float(funding.rate[0])
            )
        return FundingPeriod(settled.funding_ms, upcoming, following, settled, float(funding.rate[index]))


def _on_grid(
    anchor_ms: int, interval_ms: int, at_ms: int, settled: Settlement | None, upcoming_rate: float
) -> FundingPeriod:
    began = anchor_ms + (at_ms - anchor_ms) // interval_ms * interval_ms
    return FundingPeriod(began, began + interval_ms, began + 2 * interval_ms, settled, upcoming_rate)


def _instrument(inst_id: str, rows: _Candles, last_ms: int | None) -> Instrument:
    """Describe an instrument; `last_ms` is the recording's last minute, None where nothing is ever delisted."""
    own_last = int(rows.open_ms[-1])
    gone = last_ms is not None and own_last <= last_ms - DELISTED_AFTER_MS
    inverse = inst_id.endswith("-USD-SWAP")
    base = inst_id.split("-", maxsplit=1)[0]
    price = float(rows.figures[0][3])
    return Instrument(
        inst_id,
        list_ms=int(rows.open_ms[0]),
        contract_exponent=INVERSE_EXPONENT if inverse else CONTRACT_EXPONENTS.get(base, round(math.log10(200 / price))),
        price_decimals=_decimals(rows.figures[:, :4]),
        inverse=inverse,
        delist_ms=own_last + MINUTE_MS + DELISTING_DELAY_MS if gone else None,
    )


def _decimals(prices: Floats) -> int:
    """Count the decimals that the recorded prices use; a few thousand of them show it."""
    step = max(1, len(prices) // 2_000)
    sample = np.unique(prices[::step]).tolist()
    return max(len(plain(price).partition(".")[2]) for price in sample)


def load_recording(folder: Path, *, delist: bool = True) -> ReplayMarket:
    """Read a folder; unsorted or repeated rows are put in order, of a repeated minute the last row wins."""
    candles = _read_candles(folder / CANDLES_FILE)
    funding = _read_funding(folder / FUNDING_FILE)
    for inst_id in sorted(funding.keys() - candles.keys()):
        log.warning("funding of %s is ignored: there are no candles of it", inst_id)
    for inst_id in sorted(candles.keys() - funding.keys()):
        log.warning("no funding of %s was recorded: its predicted rate is 0 and nothing is settled", inst_id)
    known = {inst_id: rows for inst_id, rows in funding.items() if inst_id in candles}
    return ReplayMarket(candles, known, delist=delist)


def _read_candles(path: Path) -> dict[str, _Candles]:
    table = _read_table(path, ("symbol", "timestamp", *PRICE_COLUMNS, "volume"))
    times = _milliseconds(path, table["timestamp"])
    off_minute = times % MINUTE_MS
    if (off_minute >= ON_THE_MINUTE_MS).any():
        raise UnusableRecordingError(
            f"{path}: `timestamp` does not lie on whole minutes; it must be the open time (UTC) of each minute"
        )
    figures = np.column_stack([_floats(path, table, name) for name in (*PRICE_COLUMNS, "volume")])
    _check_figures(path, figures)
    figures = np.column_stack([figures, _quote_volume(path, table, figures)])
    return {
        inst_id: _Candles(open_ms, figures[rows])
        for inst_id, open_ms, rows in _by_instrument(path, table, times - off_minute)
    }


def _check_figures(path: Path, figures: Floats) -> None:
    if not np.isfinite(figures).all():
        raise UnusableRecordingError(f"{path}: there are empty or infinite prices or volumes; leave such minutes out")
    if (figures[:, :4] <= 0).any() or (figures[:, 4] < 0).any():
        raise UnusableRecordingError(f"{path}: there are prices that are not above 0, or negative volumes; remove them")
    opens, highs, lows, closes = figures[:, :4].T
    if (highs < np.maximum(opens, closes)).any() or (lows > np.minimum(opens, closes)).any():
        log.warning("%s: some minutes open or close outside their own high and low; they are sent as recorded", path)


def _quote_volume(path: Path, table: pa.Table, figures: Floats) -> Floats:
    """Take the recorded turnover, otherwise volume x typical price."""
    for name in QUOTE_VOLUME_COLUMNS:
        if name in table.column_names:
            recorded = _floats(path, table, name)
            if np.isfinite(recorded).all():
                return recorded
            log.warning("%s: `%s` has empty values and is not used", path, name)
    typical = figures[:, 1:4].sum(axis=1) / 3
    amount: Floats = np.round(figures[:, 4] * typical, 6)
    return amount


def _read_funding(path: Path) -> dict[str, _Funding]:
    table = _read_table(path, ("symbol", "timestamp", "funding_rate"))
    rates = _floats(path, table, "funding_rate")
    if not np.isfinite(rates).all():
        raise UnusableRecordingError(f"{path}: there are empty or infinite funding rates; leave such rows out")
    # Recorded settlements carry a few ms of jitter; a settlement lies on a minute.
    times = (_milliseconds(path, table["timestamp"]) + MINUTE_MS // 2) // MINUTE_MS * MINUTE_MS
    return {
        inst_id: _Funding(funding_ms, rates[rows]) for inst_id, funding_ms, rows in _by_instrument(path, table, times)
    }


def _read_table(path: Path, columns: tuple[str, ...]) -> pa.Table:
    if not path.is_file():
        raise UnusableRecordingError(
            f"{path}: there is no such file; a recording holds {CANDLES_FILE} and {FUNDING_FILE}"
        )
    try:
        table = pq.ParquetFile(path).read()
    except (pa.ArrowInvalid, OSError) as error:
        raise UnusableRecordingError(f"{path}: not a readable Parquet file ({error}); write it again") from error
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise UnusableRecordingError(
            f"{path}: the column {', '.join(missing)} is missing (there are {', '.join(table.column_names)}); "
            f"a recording needs {', '.join(columns)}"
        )
    if not table.num_rows and path.name == CANDLES_FILE:
        raise UnusableRecordingError(f"{path}: the file has no rows; record at least one minute")
    return table


def _floats(path: Path, table: pa.Table, name: str) -> Floats:
    try:
        column = table[name].cast(pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UnusableRecordingError(f"{path}: `{name}` is not numeric ({error}); write it as float64") from error
    return np.asarray(column.to_numpy(), dtype=np.float64)


def _milliseconds(path: Path, column: pa.ChunkedArray) -> Ints:
    """Read times of any spelling as Unix ms; naive ones are UTC, of integers the magnitude gives the unit."""
    if column.null_count:
        raise UnusableRecordingError(f"{path}: some rows have no `timestamp`; remove them")
    kind = column.type
    try:
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            column = pc.cast(pc.replace_substring_regex(column, "(Z|\\+00:?00)$", ""), pa.timestamp("ms"))
            kind = column.type
        if pa.types.is_timestamp(kind):
            divisor = {"s": 0.001, "ms": 1, "us": 1_000, "ns": 1_000_000}[kind.unit]
            return _scaled(np.asarray(column.cast(pa.int64()).to_numpy(), dtype=np.int64), divisor)
        numbers = np.asarray(column.cast(pa.int64()).to_numpy(), dtype=np.int64)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UnusableRecordingError(f"{path}: `timestamp` is not a time ({error}); write timestamps or ms") from error
    return _scaled(numbers, _unit_of(numbers))


def _unit_of(numbers: Ints) -> float:
    """Return how many of their unit a ms has: of s, ms, us and ns the one of which a date of our days has so many."""
    largest = int(np.abs(numbers).max(initial=0))
    for border, divisor in ((10**11, 0.001), (10**14, 1), (10**17, 1_000)):
        if largest < border:
            return divisor
    return 1_000_000


def _scaled(numbers: Ints, divisor: float) -> Ints:
    return numbers * 1_000 if divisor < 1 else numbers // int(divisor)


def _by_instrument(path: Path, table: pa.Table, times: Ints) -> list[tuple[str, Ints, npt.NDArray[np.intp]]]:
    """Split rows by instrument, sorted by time; of equal times the last row stays."""
    names, codes = _instrument_codes(path, table["symbol"])
    order = np.lexsort((np.arange(len(times)), times, codes))
    codes, times = codes[order], times[order]
    last_of_its_time = np.ones(len(times), dtype=bool)
    last_of_its_time[:-1] = (codes[1:] != codes[:-1]) | (times[1:] != times[:-1])
    order, codes, times = order[last_of_its_time], codes[last_of_its_time], times[last_of_its_time]
    borders = np.searchsorted(codes, np.arange(len(names) + 1))
    return [
        (name, times[first:last], order[first:last])
        for name, first, last in zip(names, borders[:-1], borders[1:], strict=True)
        if last > first
    ]


def _instrument_codes(path: Path, symbols: Any) -> tuple[list[str], Ints]:
    """Return the instIds and, for each row, the number of its instId."""
    encoded = symbols.cast(pa.string()).combine_chunks().dictionary_encode()
    if encoded.null_count:
        raise UnusableRecordingError(f"{path}: some rows have no `symbol`; remove them")
    try:
        inst_ids = [inst_id_of(symbol) for symbol in encoded.dictionary.to_pylist()]
    except UnreadableNameError as error:
        raise UnusableRecordingError(f"{path}: {error}; name it like ADA-USDT-SWAP") from error
    names = sorted(set(inst_ids))
    number = {name: index for index, name in enumerate(names)}
    renumbered = np.array([number[inst_id] for inst_id in inst_ids], dtype=np.int64)
    return names, renumbered[np.asarray(encoded.indices.to_numpy(zero_copy_only=False), dtype=np.int64)]
