"""Rows are appended as segments and merged into the day files later: nothing is lost, doubled or undone on the way."""

import os
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.writer.disk import compaction
from services.writer.disk.ledger import Key, read_day, scan_day
from services.writer.disk.reading import StoredRows
from services.writer.disk.store import RawStore
from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate, PredictedFundingRate
from shared.datasets.universe import Rank
from shared.ledger.day import DayLedger
from shared.storage.layout import Partition, damaged_path, day_folder, partition_of
from shared.storage.parquet import read_rows, version_of
from shared.storage.segments import segments_of
from shared.storage.versions import content_in, signature_in
from tests.support.builders import (
    DAY_0,
    a_candle,
    a_funding_rate,
    a_prediction,
    a_ranking,
    a_verdict,
    minute,
    write_batch,
)

FILE = Partition("kline_1m", DAY_0, "BTC_USDT")
KEY = Key("kline_1m", "BTC_USDT")


class Power(BaseException):
    """The power goes."""


def compact(raw):
    chosen = raw.begin_compaction()
    raw.merge(chosen)
    return raw.end_compaction(chosen)


def opens(root, file=FILE):
    return read_rows(Candle, file.path(root))["open_time"].to_pylist()


def test_what_is_appended_is_in_segments_and_no_day_file_changes(tmp_path):
    raw = RawStore(tmp_path)

    raw.append({Candle: [a_candle(), a_candle("ETH_USDT")], PredictedFundingRate: [a_prediction()]})

    assert [segment.dataset for segment in segments_of(tmp_path)] == ["funding_predicted", "kline_1m"]
    assert not (tmp_path / "kline_1m").exists()
    assert raw.rows == 3


def test_rare_rows_are_in_their_day_file_at_once(tmp_path):
    raw = RawStore(tmp_path)

    raw.append({Rank: list(a_ranking("BTC_USDT").ranks)})

    assert segments_of(tmp_path) == []
    assert read_rows(Rank, Partition("universe", DAY_0).path(tmp_path)).num_rows == 1


@pytest.mark.invariant(7)
def test_what_the_ledger_says_does_not_wait_for_the_merge(tmp_path):
    """Invariant 7."""
    raw = RawStore(tmp_path)
    raw.append({Candle: [a_candle()]}, [a_verdict("wanted", 0, 3)])

    changed = raw.append({Candle: [a_candle(open_time=minute(2), source="rest")], FundingRate: [a_funding_rate()]})

    assert changed[DAY_0][KEY].ledger == DayLedger(wanted=0b111, received=0b1, healed=0b100)
    assert changed[DAY_0]["funding", "BTC_USDT"].ledger == DayLedger(wanted=1, received=1)
    assert read_day(tmp_path, DAY_0) == {}
    assert compact(raw)[DAY_0] == read_day(tmp_path, DAY_0) == raw.known(DAY_0)
    assert read_day(tmp_path, DAY_0)[KEY].ledger == changed[DAY_0][KEY].ledger


@pytest.mark.invariant(7)
def test_what_comes_again_changes_nothing_in_the_ledger(tmp_path):
    """Invariant 7."""
    raw = RawStore(tmp_path)
    raw.append({Candle: [a_candle()]}, [a_verdict("wanted", 0, 9)])

    assert raw.append({Candle: [a_candle()]}, [a_verdict("wanted", 3, 5)]) == {DAY_0: {}}


def test_a_correction_of_another_source_is_decided_at_the_merge(tmp_path):
    raw = RawStore(tmp_path)
    raw.append({Candle: [a_candle(price=1.0)]})

    raw.append({Candle: [a_candle(price=2.0, source="rest", receive_time=minute(9))]})
    assert raw.known(DAY_0)[KEY].ledger.stored == 1
    compact(raw)

    assert raw.known(DAY_0)[KEY].ledger == DayLedger(healed=1)


def test_a_merge_that_changes_nothing_writes_no_day_file(tmp_path):
    raw = RawStore(tmp_path)
    raw.append({Candle: [a_candle()]})
    compact(raw)
    before = FILE.path(tmp_path).stat()

    raw.append({Candle: [a_candle()]})
    compact(raw)

    assert FILE.path(tmp_path).stat() == before
    assert segments_of(tmp_path) == []


def test_the_ledger_names_the_content_of_the_file(tmp_path):
    write_batch(tmp_path, [a_candle(), a_candle(open_time=minute(1))])

    (known,) = read_day(tmp_path, DAY_0).values()

    path = FILE.path(tmp_path)
    assert known.version == version_of(path, path.stat())
    assert content_in(known.version) != signature_in(known.version)


@pytest.mark.invariant(8)
def test_readers_of_the_datasets_folder_find_nothing_but_whole_day_files(tmp_path, monkeypatch):
    """Invariant 8: also while files are written."""
    seen = []
    write = compaction.write_parquet

    def watched(path, table):
        write(path, table)
        seen.append(sorted(entry.name for entry in (tmp_path / "kline_1m").rglob("*") if entry.is_file()))

    monkeypatch.setattr(compaction, "write_parquet", watched)
    write_batch(tmp_path, [a_candle(symbol) for symbol in ("A_USDT", "B_USDT")])
    write_batch(tmp_path, [a_candle(symbol, minute(1)) for symbol in ("A_USDT", "B_USDT")])

    assert seen == [[], []] + [["A_USDT_20250405.parquet", "B_USDT_20250405.parquet"]] * 2


def _another_disk(tmp_path):
    for disk in (Path("/dev/shm"), Path("/tmp")):  # noqa: S108 - another file system, if there is one
        if disk.is_dir() and disk.stat().st_dev != tmp_path.stat().st_dev:
            other = disk / f"qlib-crypto-{os.getpid()}"
            other.mkdir()
            return other
    pytest.skip("needs a second file system")


def test_a_day_whose_folder_leads_to_another_disk_is_merged_there(tmp_path):
    """A rename cannot go from one file system to another."""
    other = _another_disk(tmp_path)
    try:
        day_folder(tmp_path, "kline_1m", DAY_0).parent.mkdir(parents=True)
        day_folder(tmp_path, "kline_1m", DAY_0).symlink_to(other)
        write_batch(tmp_path, [a_candle()])

        assert opens(tmp_path) == [minute(0)]
        assert [path.name for path in other.iterdir()] == ["BTC_USDT_20250405.parquet"]
    finally:
        shutil.rmtree(other)


# --- the order in which things become durable


@pytest.mark.invariant(3)
def test_day_files_and_their_names_are_durable_before_the_ledger_names_them_and_segments_go_last(tmp_path, disk):
    """Invariant 3: also where the power goes, and the folders are new."""
    raw, gone = RawStore(tmp_path), []
    raw.append({Candle: [a_candle()]}, [a_verdict("wanted", 0, 1)])
    unlink = Path.unlink

    def watched(path, **options):
        if "_segments" in path.parts:
            gone.append(len(disk.calls))
        unlink(path, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", watched)
        compact(raw)

    candles, ledger = FILE.path(tmp_path), Partition("ledger", DAY_0).path(tmp_path)
    assert disk.synced(candles) < disk.named(candles)
    for folder in (candles.parent, candles.parent.parent, tmp_path):
        assert disk.named(candles) < disk.synced(folder)
    assert disk.synced(candles.parent) < disk.named(ledger)
    assert disk.synced(ledger) < disk.named(ledger) < disk.synced(ledger.parent) < min(gone)


def content(root):
    """Return every stored row: by day files and segments, as any reader finds them."""
    stored = StoredRows(root)
    found = {}
    for dataset, symbols in (("kline_1m", ["A_USDT", "B_USDT"]), ("funding", [None])):
        for day in stored.days(dataset):
            for symbol in symbols:
                try:
                    rows = stored.of(Partition(dataset, day, symbol)).to_pylist()
                except FileNotFoundError:
                    continue
                for row in rows:
                    key = dataset, row["symbol"], row.get("open_time", row.get("funding_time"))
                    assert key not in found
                    found[key] = row
    return found


ROWS = st.lists(
    st.one_of(
        st.builds(
            lambda symbol, number, known: a_candle(symbol, minute(number), 1.0 + known, receive_time=minute(known)),
            st.sampled_from(["A_USDT", "B_USDT"]),
            st.sampled_from([0, 1, 1439, 1440]),
            st.integers(0, 3),
        ),
        st.builds(a_funding_rate, st.sampled_from(["A_USDT", "B_USDT"])),
    ),
    max_size=8,
)


@pytest.mark.invariant(2)
@pytest.mark.invariant(3)
@settings(deadline=None, max_examples=60)
@given(st.data())
def test_wherever_the_power_goes_no_acknowledged_row_is_lost_and_none_is_doubled(tmp_path_factory, data):
    """Invariants 2 and 3: every rename, sync, write and deletion may be the last one."""
    root = tmp_path_factory.mktemp("raw")
    acknowledged, verdicts = [], []
    raw = RawStore(root)
    for _ in range(data.draw(st.integers(1, 5))):
        rows, verdict = data.draw(ROWS), data.draw(st.booleans())
        steps = data.draw(st.integers(0, 40))
        try:
            with dying_after(steps):
                by_kind = {}
                for row in rows:
                    by_kind.setdefault(type(row), []).append(row)
                raw.append(by_kind, [a_verdict("wanted", 0, 2, "A_USDT")] if verdict else [])
                acknowledged += rows
                verdicts += [verdict]
                if data.draw(st.booleans()):
                    compact(raw)
        except Power:
            at_once = content(root)
            raw = RawStore(root)
            raw.recover()
            assert content(root) == at_once
            assert segments_of(root) == []
            assert not (root / "_wip").exists() or not list((root / "_wip").iterdir())
    found = content(root)
    newest = {}
    for row in sorted(acknowledged, key=lambda row: (getattr(row, row.newest), getattr(row, "open", 0.0))):
        newest[row.dataset, row.symbol, getattr(row, row.time)] = row
    for key, row in newest.items():
        if isinstance(row, Candle):
            assert found[key]["receive_time"] >= row.receive_time
        else:
            assert found[key]["funding_rate"] == row.funding_rate
    if any(verdicts):
        compact(raw)
        assert read_day(root, DAY_0)["kline_1m", "A_USDT"].ledger.wanted == 0b11
    compact(raw)
    for day in (DAY_0, DAY_0 + timedelta(days=1)):
        before, now = scan_day(root, day)
        assert before == now  # the ledger is in line with the files


class dying_after:  # noqa: N801 - reads as a sentence
    """Let the power go after so many changes of the disk."""

    def __init__(self, steps):
        self.left = steps
        self.patch = pytest.MonkeyPatch()

    def __enter__(self):
        for name in ("replace", "fsync", "unlink"):
            self.patch.setattr(os, name, self.counted(getattr(os, name)))

    def counted(self, call):
        def dies(*arguments, **options):
            if not self.left:
                raise Power
            self.left -= 1
            return call(*arguments, **options)

        return dies

    def __exit__(self, *_):
        self.patch.undo()


# --- what goes wrong


@pytest.mark.invariant(3)
def test_where_the_disk_refuses_the_merge_nothing_is_lost_and_it_is_done_later(tmp_path, monkeypatch):
    """Invariant 3."""
    raw = RawStore(tmp_path)
    raw.append({Candle: [a_candle()]}, [a_verdict("wanted", 0, 2)])

    before = raw.rows, raw.oldest

    def refuses(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(compaction.Durable, "sync", refuses)
        chosen = raw.begin_compaction()
        with pytest.raises(OSError, match="No space left"):
            raw.merge(chosen)
        raw.give_up_compaction()
    assert (raw.rows, raw.oldest) == before  # it is due as before, and not only once what comes has grown as old
    assert not list((tmp_path / "_wip").iterdir())
    raw.append({Candle: [a_candle(open_time=minute(1))]})
    assert raw.known(DAY_0)[KEY].ledger == DayLedger(wanted=0b11, received=0b11)

    compact(raw)

    assert opens(tmp_path) == [minute(0), minute(1)]
    assert read_day(tmp_path, DAY_0)[KEY].ledger == DayLedger(wanted=0b11, received=0b11)


@pytest.mark.invariant(7)
@pytest.mark.invariant(12)
@pytest.mark.parametrize("what", ["damaged", "gone"])
def test_the_minutes_of_a_segment_that_is_lost_are_missing_and_what_was_wanted_stays(tmp_path, what):
    """Invariants 7 and 12: so they are fetched again."""
    raw = RawStore(tmp_path)
    raw.append({Candle: [a_candle()]}, [a_verdict("wanted", 0, 2)])
    raw.append({Candle: [a_candle(open_time=minute(1))]})
    assert not raw.is_damaged()
    first, _, wanted = sorted(segments_of(tmp_path), key=lambda segment: segment.dataset)
    for segment in (first, wanted):
        path = segment.path(tmp_path)
        path.unlink() if what == "gone" else path.write_bytes(b"torn")
    assert raw.is_damaged()

    said = compact(raw)

    assert said[DAY_0][KEY].ledger == DayLedger(wanted=0b11, received=0b10)
    assert opens(tmp_path) == [minute(1)]
    assert len(list((tmp_path / "_damaged").rglob("*.damaged"))) == (2 if what == "damaged" else 0)
    assert not raw.is_damaged()


@pytest.mark.invariant(11)
def test_rows_of_a_retired_day_do_not_bring_its_folder_back(tmp_path):
    """Invariant 11."""
    raw = RawStore(tmp_path)
    raw.append({Candle: [a_candle(), a_candle(open_time=minute(1440))]})

    chosen = raw.begin_compaction()
    raw.merge(chosen, lambda file: file.day == DAY_0)
    raw.end_compaction(chosen)

    assert [path.name for path in (tmp_path / "kline_1m").iterdir()] == ["date=2025-04-06"]
    assert segments_of(tmp_path) == []


def test_rows_that_come_during_a_merge_wait_for_the_next_one(tmp_path):
    raw = RawStore(tmp_path)
    raw.append({Candle: [a_candle()]})
    chosen = raw.begin_compaction()
    raw.append({Candle: [a_candle(open_time=minute(1))]})

    raw.merge(chosen)
    said = raw.end_compaction(chosen)

    assert said[DAY_0][KEY].ledger == DayLedger(received=0b11)
    assert opens(tmp_path) == [minute(0)]
    assert len(segments_of(tmp_path)) == 1
    compact(raw)
    assert opens(tmp_path) == [minute(0), minute(1)]


def test_more_rows_than_memory_is_given_for_are_merged_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(compaction, "ROWS_AT_ONCE", 2)
    raw, groups = RawStore(tmp_path), []
    merge = compaction.merge_tables
    monkeypatch.setattr(
        compaction, "merge_tables", lambda root, tables, known: groups.append(len(tables)) or merge(root, tables, known)
    )
    for number in range(5):
        raw.append({Candle: [a_candle(open_time=minute(number))]})

    compact(raw)

    assert groups == [1, 1, 1]
    assert opens(tmp_path) == [minute(number) for number in range(5)]


@pytest.mark.invariant(12)
@pytest.mark.parametrize("place", ["_segments", "_segments/kline_1m", "_wip"])
@pytest.mark.parametrize("what", ["file", "link to nowhere"])
def test_what_stands_where_a_folder_of_ours_belongs_is_put_aside(tmp_path, place, what):
    """Invariant 12."""
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.touch() if what == "file" else path.symlink_to(tmp_path / "nowhere")

    write_batch(tmp_path, [a_candle()])

    assert opens(tmp_path) == [minute(0)]
    assert os.path.lexists(damaged_path(tmp_path, path))


def test_a_ledger_of_a_day_is_read_with_what_segments_add(tmp_path):
    raw = RawStore(tmp_path)
    raw.append({Candle: [a_candle()]}, [a_verdict("wanted", 0, 5)])
    compact(raw)
    raw.append({Candle: [a_candle(open_time=minute(1))]}, [a_verdict("absent", 2, 3)])

    found = StoredRows(tmp_path).ledger(DAY_0, "kline_1m")

    assert found[KEY].ledger == DayLedger(wanted=0b11111, received=0b11, absent=0b100) == raw.known(DAY_0)[KEY].ledger
    assert StoredRows(tmp_path).of(partition_of(a_candle())).num_rows == 2


@pytest.mark.invariant(12)
@pytest.mark.parametrize("what", ["link in a circle", "link to nowhere", "folder", "empty", "of another dataset"])
def test_what_cannot_be_merged_is_put_aside_and_the_others_are_merged(tmp_path, what):
    """Invariant 12: whoever put it there, and also while the writer runs."""
    raw = RawStore(tmp_path)
    raw.append({Candle: [a_candle()], PredictedFundingRate: [a_prediction()]})
    odd = tmp_path / "_segments" / "kline_1m" / "00000000000000000001-aaaaaaaa.parquet"
    match what:
        case "link in a circle":
            odd.symlink_to(odd.name)
        case "link to nowhere":
            odd.symlink_to(tmp_path / "nowhere")
        case "folder":
            odd.mkdir()
        case "empty":
            odd.touch()
        case "of another dataset":
            (predictions,) = segments_of(tmp_path, ["funding_predicted"])
            odd.write_bytes(predictions.path(tmp_path).read_bytes())

    compact(raw)

    assert opens(tmp_path) == [minute(0)]
    assert segments_of(tmp_path) == []
    assert damaged_path(tmp_path, odd).with_suffix(".damaged.txt").read_text().strip()


def test_segments_that_somebody_put_back_are_merged(tmp_path):
    """From a backup, while the writer runs."""
    other, raw = RawStore(tmp_path / "backup"), RawStore(tmp_path / "raw")
    other.append({Candle: [a_candle(open_time=minute(5))]})
    raw.append({Candle: [a_candle()]})
    (segment,) = segments_of(other.root)
    shutil.copy(segment.path(other.root), segment.path(raw.root))

    compact(raw)

    assert opens(raw.root) == [minute(0), minute(5)]


@pytest.mark.parametrize("place", ["_wip", "_segments/kline_1m"])
def test_rows_are_stored_where_a_folder_of_ours_leads_to_another_disk(tmp_path, place):
    other = _another_disk(tmp_path)
    try:
        link = tmp_path / place
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(other)
        write_batch(tmp_path, [a_candle()])

        assert opens(tmp_path) == [minute(0)]
    finally:
        shutil.rmtree(other)


def test_a_file_where_the_folder_for_work_belongs_stops_no_start(tmp_path):
    RawStore(tmp_path).append({Candle: [a_candle()]})
    (tmp_path / "_wip").rmdir()
    (tmp_path / "_wip").write_text("?")

    RawStore(tmp_path).recover()

    assert opens(tmp_path) == [minute(0)]
