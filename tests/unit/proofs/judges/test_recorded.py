"""A recording against the bins: each kind of mistake is made here, and found."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from proofs.judges.bins import UnreadableDatasetError
from proofs.judges.recorded import RecordedTally, spans_wrong, verify
from proofs.judges.tally import Role
from proofs.rig.recording import PRICES_AND_VOLUME, Recorded
from proofs.units import MINUTE_MS

SYMBOL = "BTC_USDT"
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
BEGIN_MS = int(BEGIN.timestamp() * 1000)
BARS = 100
END_MS = BEGIN_MS + BARS * MINUTE_MS


def a_recording() -> Recorded:
    opens = BEGIN_MS + MINUTE_MS * np.arange(BARS, dtype=np.int64)
    values = {name: 1000.0 * (place + 1) + np.arange(BARS) for place, name in enumerate(PRICES_AND_VOLUME)}
    return Recorded(opens, values, np.array([BEGIN_MS + 50 * MINUTE_MS]), np.array([0.25]))


def write_calendar(folder: Path, opens: list[datetime]) -> None:
    (folder / "calendars").mkdir(parents=True, exist_ok=True)
    (folder / "calendars" / "1min.txt").write_text("".join(f"{at:%Y-%m-%d %H:%M:%S}\n" for at in opens))


def write_bin(folder: Path, symbol: str, field: str, values: np.ndarray) -> None:
    path = folder / "features" / symbol.lower() / f"{field}.1min.bin"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.concatenate([[0.0], values]).astype("<f4").tofile(path)


def read(folder: Path, field: str) -> np.ndarray:
    return np.fromfile(folder / "features" / SYMBOL.lower() / f"{field}.1min.bin", "<f4")[1:]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write_calendar(tmp_path, [BEGIN + timedelta(minutes=number) for number in range(BARS)])
    for name, values in a_recording().values.items():
        write_bin(tmp_path, SYMBOL, name, values)
    write_bin(tmp_path, SYMBOL, "funding_rate", np.where(np.arange(BARS) >= 50, 0.25, np.nan))
    (tmp_path / "instruments").mkdir()
    (tmp_path / "instruments" / "top50.txt").write_text(f"{SYMBOL}\t2026-03-01 00:10:00\t2026-03-01 00:19:59\n")
    return tmp_path


def verified(folder: Path, until_ms: int = END_MS) -> RecordedTally:
    return verify(folder, {SYMBOL: a_recording()}, {SYMBOL: until_ms})


def test_bins_that_hold_the_recording_are_clean(dataset):
    found = verified(dataset)

    assert found.clean
    assert found.counts(Role.SIZE, Role.EVIDENCE) == {"symbols": 1, "minutes": BARS, "values": 5 * BARS}


def lack(folder: Path) -> None:
    write_bin(folder, SYMBOL, "close", np.where(np.arange(BARS) == 7, np.nan, read(folder, "close")))


def invent(folder: Path) -> None:
    write_bin(folder, "ETH_USDT", "close", np.array([1.0, np.nan, 2.0]))


def change(folder: Path) -> None:
    write_bin(folder, SYMBOL, "open", np.where(np.arange(BARS) == 7, 0.5, read(folder, "open")))


def pay_early(folder: Path) -> None:
    write_bin(folder, SYMBOL, "funding_rate", np.where(np.arange(BARS) >= 49, 0.25, np.nan))


def skip_a_label(folder: Path) -> None:
    late = BEGIN + timedelta(minutes=BARS)
    write_calendar(folder, [BEGIN + timedelta(minutes=number) for number in range(BARS - 1)] + [late])


@pytest.mark.parametrize(
    ("mistake", "faults"),
    [
        (lack, {"missing": 1}),
        (invent, {"invented": 2}),
        (change, {"wrong": 1}),
        (pay_early, {"funding_wrong": 1}),
        (skip_a_label, {"off_grid": 1}),
    ],
)
def test_a_mistake_is_counted_for_what_it_is(dataset, mistake: Callable[[Path], None], faults):
    mistake(dataset)
    found = verified(dataset)

    assert {name: count for name, count in found.counts(Role.FAULT).items() if count} == faults
    assert not found.clean


def test_the_value_of_a_minute_nearby_is_shifted(dataset):
    values = read(dataset, "high")
    values[7] = values[4]
    write_bin(dataset, SYMBOL, "high", values)
    found = verified(dataset)

    assert (found.wrong, found.shifted) == (1, 1)


def test_a_minute_that_is_not_wanted_may_lack_and_may_not_be_wrong(dataset):
    lack(dataset)
    assert verified(dataset, BEGIN_MS + 7 * MINUTE_MS).clean

    change(dataset)
    assert verified(dataset, BEGIN_MS + 7 * MINUTE_MS).wrong == 1


def test_a_folder_without_a_calendar_proves_nothing(tmp_path):
    with pytest.raises(UnreadableDatasetError):
        verified(tmp_path)


@pytest.mark.parametrize(("since", "until", "wrong"), [(10, 20, 0), (10, 21, 1), (9, 20, 1), (10, None, 1)])
def test_spans_are_held_against_the_memberships(dataset, since: int, until: int | None, wrong: int):
    begin, end = BEGIN_MS + since * MINUTE_MS, None if until is None else BEGIN_MS + until * MINUTE_MS

    assert spans_wrong(dataset, {SYMBOL: [(begin, end)]}) == wrong
