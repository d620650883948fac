"""Judge: are the bins those that Qlib's own `scripts/dump_bin.py` makes of the same values, byte for byte? I/O.

The script comes from a checkout of microsoft/qlib and runs in the environment of Qlib. It is given every field of every
bar as `proofs.judges.recompute` computes it, one Parquet file a symbol. Its calendar is the union of the bars that it
is given, and its positions count from the first of them; so the raw data is taken from the first day on which a symbol
has every minute, and at every bar at least one symbol must have a value. Both are measured in the same run.
"""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from proofs.judges.bins import FREQUENCIES, NO_BIN, Bin, read_bin, read_calendar, symbols_of
from proofs.judges.recompute import Frame, Options, Raw, SymbolFacts, facts_of, recompute
from proofs.judges.tally import Judgement, compare_bits
from proofs.judges.values import OnProgress, label
from proofs.rig.conversion import RESEARCH_PYTHON, Cost, convert, measured
from proofs.units import MINUTE_MS, MINUTES_PER_DAY

_SUMMED = ("volume", "amount", "contracts")


class PeerError(Exception):
    """dump_bin cannot be asked; the text says why."""


@dataclass
class Peer:
    """What the comparison found."""

    judgement: Judgement = field(default_factory=Judgement)
    identical_files: int = 0
    different_files: int = 0
    bytes_compared: int = 0
    converter: Cost = field(default_factory=Cost)
    inputs: Cost = field(default_factory=Cost)
    """What making dump_bin's input took: it reads no day files, and makes no field and no longer bar itself."""
    dump_bin: Cost = field(default_factory=Cost)
    """From Parquet, with a worker a processor: the fastest that it is."""
    dump_bin_csv: Cost = field(default_factory=Cost)
    """As it is when nothing is said: from CSV, with 16 workers."""

    @property
    def clean(self) -> bool:
        """Return whether files were compared, and all are identical."""
        return self.judgement.clean and self.identical_files > 0 and not self.different_files


def judge_against_dump_bin(
    data_dir: Path,
    checkout: Path,
    work: Path,
    *,
    options: Options,
    settings: Mapping[str, str],
    on_progress: OnProgress,
) -> Peer:
    """Convert with both, compare every bin, and measure both.

    Raises `PeerError`, `RawError`, `UnreadableDatasetError` and `ProcessFailedError`.
    """
    script = checkout / "scripts" / "dump_bin.py"
    for path in (script, RESEARCH_PYTHON):
        if not path.exists():
            raise PeerError(f"{path} is not there")
    peer, data = Peer(), work / "okx_data"
    _from_first_whole_day(Raw(data_dir), data)
    on_progress("converter")
    peer.converter = convert(data, work / "qlib", settings, rebuild=True)
    raw = Raw(data)
    until = int(read_calendar(work / "qlib", "1min")[-1]) + MINUTE_MS
    for frequency in FREQUENCIES:
        on_progress(f"dump_bin {frequency}")
        source, target = work / "in" / frequency, work / "dumped" / frequency
        wall, cpu = time.monotonic(), time.process_time()
        _write_inputs(raw, until, options, frequency, source)
        peer.inputs += Cost(time.monotonic() - wall, time.process_time() - cpu)
        peer.dump_bin += _dump(script, source, target, frequency, "--max_workers", "2", "--file_suffix", ".parquet")
        peer.dump_bin_csv += _dump(script, _as_csv(source), work / "dumped_csv" / frequency, frequency)
        shutil.rmtree(source)
        _compare_files(peer, work / "qlib", target, frequency)
    return peer


def _dump(script: Path, source: Path, target: Path, frequency: str, *more: str) -> Cost:
    command = [str(RESEARCH_PYTHON), str(script), "dump_all", "--data_path", str(source), "--qlib_dir", str(target)]
    return measured([*command, "--freq", frequency, *more])


def _as_csv(source: Path) -> Path:
    target = source / "csv"
    target.mkdir()
    for path in sorted(source.glob("*.parquet")):
        pd.read_parquet(path).to_csv(target / f"{path.stem}.csv", index=False)
    return target


def _from_first_whole_day(raw: Raw, target: Path) -> None:
    """Link the days from the first one on which a symbol has every minute."""
    days = sorted({path.parent.name for files in raw.candle_files.values() for path in files})
    begin = next((day for day in days if _has_whole_candles(raw.root / "kline_1m" / day)), None)
    if begin is None:
        raise PeerError("no symbol has every minute of any day: dump_bin's calendar would have holes")
    for dataset in sorted(path for path in raw.root.iterdir() if path.is_dir()):
        (target / dataset.name).mkdir(parents=True)
        for day in sorted(dataset.glob("date=*")):
            if day.name >= begin:
                (target / dataset.name / day.name).symlink_to(day.resolve(), target_is_directory=True)


def _has_whole_candles(folder: Path) -> bool:
    return any(
        len(pd.read_parquet(path, columns=["open_time"], partitioning=None)) == MINUTES_PER_DAY
        for path in sorted(folder.glob("*.parquet"))
    )


def _write_inputs(raw: Raw, until: int, options: Options, frequency: str, target: Path) -> None:
    """Write one file a symbol as dump_bin wants it: a column `date` without a zone, and one column a field."""
    target.mkdir(parents=True)
    step, covered = FREQUENCIES[frequency] * MINUTE_MS, set()
    for symbol in sorted(raw.candle_files):
        facts = facts_of(raw, symbol, until, options)
        bars = recompute(facts, frequency)
        if bars is None:
            continue
        _sum_as_numpy(bars, facts, FREQUENCIES[frequency])
        covered.update(bars.index)
        dates = pd.to_datetime(bars.index, unit="ms").astype("datetime64[ns]")
        bars.reset_index(drop=True).assign(date=dates).to_parquet(target / f"{symbol}.parquet", index=False)
    grid = range(raw.first_day, until - step + 1, step)
    if lacking := sorted(set(grid) - covered):
        raise PeerError(f"nobody has a bar at {label(lacking[0])}: dump_bin would leave it out of its calendar")


def _sum_as_numpy(bars: Frame, facts: SymbolFacts, minutes: int) -> None:
    """Add up the minutes of every bar in numpy's order, an absent one as 0; pandas has another order, and last bit.

    dump_bin adds nothing up itself, so in which order its input was added is ours to choose.
    """
    if minutes == 1:
        return
    opens = bars.index.to_numpy(np.int64)
    candles = facts.candles.reindex(opens[0] + MINUTE_MS * np.arange(len(opens) * minutes, dtype=np.int64)).fillna(0.0)
    for name in _SUMMED:
        sums = candles[name].to_numpy(np.float64).reshape(-1, minutes).sum(axis=1)
        bars[name] = np.where(bars[name].notna(), sums, np.nan)
    traded = bars["volume"] > 0
    bars["vwap"] = bars["vwap"].where(~traded, bars["amount"] / bars["volume"].where(traded))


def _compare_files(peer: Peer, ours: Path, theirs: Path, frequency: str) -> None:
    """Compare every bin of one frequency, and the calendar."""
    calendars = [(folder / "calendars" / f"{frequency}.txt").read_bytes() for folder in (ours, theirs)]
    if calendars[0] != calendars[1]:
        peer.judgement.problem(f"calendar {frequency} differs from dump_bin's")
    names = [_bins(folder, frequency) for folder in (ours, theirs)]
    for name in sorted(names[0] ^ names[1]):
        whose = "the converter" if name in names[0] else "dump_bin"
        peer.judgement.problem(f"only {whose} has {name}")
    for name in sorted(names[0] & names[1]):
        pair = [(folder / "features" / name).read_bytes() for folder in (ours, theirs)]
        peer.bytes_compared += len(pair[0])
        peer.identical_files += pair[0] == pair[1]
        peer.different_files += pair[0] != pair[1]
        symbol, file = name.split("/")
        field_name = file.split(".")[0]
        bins = [read_bin(folder, symbol, field_name, frequency) or NO_BIN for folder in (ours, theirs)]
        _count_values(peer, (frequency, field_name), symbol.upper(), *bins)


def _bins(folder: Path, frequency: str) -> set[str]:
    return {
        f"{symbol.lower()}/{path.name}"
        for symbol in symbols_of(folder)
        for path in (folder / "features" / symbol.lower()).glob(f"*.{frequency}.bin")
    }


def _count_values(peer: Peer, key: tuple[str, str], symbol: str, ours: Bin, theirs: Bin) -> None:
    frequency, name = key
    if (ours.first, ours.end) != (theirs.first, theirs.end):
        spans = f"[{ours.first}, {ours.end}), dump_bin: [{theirs.first}, {theirs.end})"
        peer.judgement.problem(f"{symbol} {name} {frequency}: {spans}")
    first, end = min(ours.first, theirs.first), max(ours.end, theirs.end)

    def place(index: int) -> str:
        return f"{symbol} {name} position {first + index}"

    peer.judgement.count(frequency, name, compare_bits(theirs.part(first, end), ours.part(first, end), place))


def ratio(theirs: Cost, ours: Cost) -> dict[str, Any]:
    """Return how many times as long they took as we. Pure."""
    return {
        "wall": theirs.wall_seconds / ours.wall_seconds,
        "cpu": theirs.cpu_seconds / ours.cpu_seconds,
    }
