import shutil
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.writer.disk import ledger
from services.writer.disk.ledger import newest_of, read_day, scan_day
from services.writer.disk.retention import retirable, retire
from shared.datasets.candle import Candle
from shared.datasets.funding import FundingRate
from shared.datasets.ledger import CANDLES
from shared.ledger.day import DayLedger
from shared.ledger.minutes import mask_from_minutes
from shared.storage.files import remove_stale_temporaries
from shared.storage.layout import Partition, damaged_path, day_folder, days, partition_of, partitions
from shared.storage.parquet import read_rows
from shared.storage.versions import day_digest
from tests.support.builders import (
    DAY_0,
    a_candle,
    a_funding_rate,
    a_prediction,
    a_ranking,
    a_verdict,
    minute,
    store,
    write_batch,
)

SOME_CANDLES = st.lists(
    st.builds(
        lambda symbol, number, known, price: a_candle(symbol, minute(number), float(price), receive_time=minute(known)),
        st.sampled_from(["BTC_USDT", "ETH_USDT"]),
        st.integers(1437, 1443),
        st.integers(0, 3),
        st.integers(1, 3),
    ),
    min_size=1,
    max_size=20,
)


def contents(root):
    """Return every candle on disk by identity, failing on a copy."""
    found = {}
    for path in sorted((root / "kline_1m").rglob("*.parquet")):
        rows = read_rows(Candle, path).to_pylist()
        assert [row["open_time"] for row in rows] == sorted({row["open_time"] for row in rows})
        found |= {(row["symbol"], row["open_time"]): row["open"] for row in rows}
    return found


@pytest.mark.invariant(2)
@settings(deadline=None, max_examples=40)
@given(SOME_CANDLES, st.data())
def test_whatever_is_redelivered_in_whatever_order_the_files_are_the_same(tmp_path_factory, rows, data):
    """Invariant 2."""
    root, model = tmp_path_factory.mktemp("raw"), {}
    for row in sorted(rows, key=lambda row: (row.receive_time, row.open)):
        model[row.symbol, row.open_time] = row.open
    arrivals = data.draw(st.permutations([*rows, *data.draw(st.lists(st.sampled_from(rows), max_size=6))]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(arrivals)), max_size=3)))

    for begin, end in zip([0, *cuts], [*cuts, len(arrivals)], strict=True):
        write_batch(root, arrivals[begin:end])

    assert contents(root) == model


def ledger_of(written, symbol="BTC_USDT", day=DAY_0, about=CANDLES):
    return written[day][about, symbol].ledger


def test_what_a_file_holds_now_is_returned(tmp_path):
    write_batch(tmp_path, [a_candle(open_time=minute(number)) for number in (0, 1, 2, 7)])

    written = write_batch(tmp_path, [a_candle(open_time=minute(3), source="rest")])

    assert ledger_of(written) == DayLedger(received=0b10000111, healed=0b1000)
    assert newest_of(DAY_0, ledger_of(written)) == minute(7)


@pytest.mark.invariant(7)
def test_candles_settlements_and_verdicts_share_one_ledger(tmp_path):
    """Invariant 7."""
    rows = [a_candle(), a_funding_rate(), a_prediction(), *a_ranking("BTC_USDT").ranks]

    written = write_batch(tmp_path, rows, [a_verdict("wanted", 0, 3), a_verdict("absent", 1, 2)])

    assert ledger_of(written) == DayLedger(wanted=0b111, received=1, absent=0b10)
    assert ledger_of(written, about="funding") == DayLedger(wanted=1, received=1)
    assert read_day(tmp_path, DAY_0) == written[DAY_0]


@pytest.mark.invariant(3)
def test_rows_and_their_names_are_durable_before_the_ledger_names_them(tmp_path, disk):
    """Invariant 3: also where the power goes, and the folders are new."""
    write_batch(tmp_path, [a_candle()], [a_verdict("wanted", 0, 1)])

    candles, ledger = (partition.path(tmp_path) for partition in (partition_of(a_candle()), Partition("ledger", DAY_0)))
    assert disk.synced(candles) < disk.named(candles)
    ledger_named = disk.named(ledger)
    for folder in (candles.parent, candles.parent.parent):
        assert disk.named(candles) < disk.synced(folder) < ledger_named
    assert disk.synced(ledger) < ledger_named < disk.synced(ledger.parent)


@pytest.mark.invariant(7)
def test_verdicts_alone_are_durable_too_and_reach_over_midnight(tmp_path):
    """Invariant 7."""
    written = write_batch(tmp_path, [], [a_verdict("wanted", 1438, 1442, "BTC_USDT", "ETH_USDT")])

    assert [(day, sorted(key.symbol for key in records)) for day, records in written.items()] == [
        (DAY_0, ["BTC_USDT", "ETH_USDT"]),
        (DAY_0 + timedelta(days=1), ["BTC_USDT", "ETH_USDT"]),
    ]
    assert ledger_of(written).wanted == 0b11 << 1438
    assert ledger_of(written, "ETH_USDT", DAY_0 + timedelta(days=1)).wanted == 0b11
    assert read_day(tmp_path, DAY_0) == written[DAY_0]


@pytest.mark.invariant(7)
def test_a_verdict_that_comes_again_changes_nothing(tmp_path):
    """Invariant 7: the collector repeats it until it is there."""
    write_batch(tmp_path, [], [a_verdict("wanted", 0, 9)])

    assert write_batch(tmp_path, [], [a_verdict("wanted", 3, 5)]) == {DAY_0: {}}


def test_a_corrected_settlement_replaces_the_old_one(tmp_path):
    for rate, known in ((0.1, 1), (0.3, 3), (0.2, 2)):
        write_batch(tmp_path, [a_funding_rate(rate=rate, known_time=minute(known))])

    table = read_rows(FundingRate, Partition("funding", DAY_0).path(tmp_path))
    assert table["funding_rate"].to_pylist() == [0.3]


@settings(deadline=None, max_examples=30)
@given(st.sets(st.integers(0, 1439), min_size=1))
def test_the_runs_of_a_file_are_its_minutes(tmp_path_factory, numbers):
    written = write_batch(tmp_path_factory.mktemp("raw"), [a_candle(open_time=minute(n)) for n in numbers])

    assert ledger_of(written).received == mask_from_minutes(numbers)
    assert newest_of(DAY_0, ledger_of(written)) == minute(max(numbers))


# --- what is on disk


@pytest.mark.invariant(7)
def test_the_ledger_is_rebuilt_from_the_files(tmp_path):
    """Invariant 7: whatever became of the ledger, the files know what is stored."""
    store(tmp_path, [a_candle(open_time=minute(number)) for number in (5, 6, 9, 1440)])
    store(tmp_path, [a_candle("ETH_USDT", minute(0), source="rest"), a_funding_rate("ETH_USDT", minute(480))])

    _, found = scan_day(tmp_path, DAY_0)

    assert {key: known.ledger for key, known in found.items()} == {
        (CANDLES, "BTC_USDT"): DayLedger(received=mask_from_minutes([5, 6, 9])),
        (CANDLES, "ETH_USDT"): DayLedger(healed=1),
        ("funding", "ETH_USDT"): DayLedger(wanted=1 << 480, received=1 << 480),
    }
    assert read_day(tmp_path, DAY_0) == found


def test_a_second_look_reads_no_candle_file(tmp_path, monkeypatch):
    store(tmp_path, [a_candle("BTC_USDT"), a_candle("ETH_USDT")])
    _, first = scan_day(tmp_path, DAY_0)
    read = []
    look = ledger.record_of
    monkeypatch.setattr(ledger, "record_of", lambda root, file, *rest: read.append(file) or look(root, file, *rest))

    assert scan_day(tmp_path, DAY_0) == (first, first)
    assert read == []


@pytest.mark.invariant(7)
def test_a_file_that_vanished_takes_its_minutes_with_it_but_not_what_was_wanted(tmp_path):
    """Invariant 7: what is no longer stored is missing."""
    write_batch(tmp_path, [a_candle("BTC_USDT"), a_candle("ETH_USDT")], [a_verdict("wanted", 0, 1)])
    Partition("kline_1m", DAY_0, "BTC_USDT").path(tmp_path).unlink()

    _, found = scan_day(tmp_path, DAY_0)

    assert found[CANDLES, "BTC_USDT"].ledger == DayLedger(wanted=1)
    assert found[CANDLES, "BTC_USDT"].ledger.missing(1) == 1
    assert found[CANDLES, "ETH_USDT"].ledger == DayLedger(received=1)


@pytest.mark.invariant(7)
def test_a_day_that_was_retired_keeps_its_verdicts(tmp_path):
    """Invariant 7."""
    write_batch(tmp_path, [a_candle()], [a_verdict("wanted", 0, 1)])
    shutil.rmtree(day_folder(tmp_path, "kline_1m", DAY_0))

    _, found = scan_day(tmp_path, DAY_0)

    assert found[CANDLES, "BTC_USDT"].ledger == DayLedger(wanted=1, received=1)


@pytest.mark.invariant(12)
@pytest.mark.parametrize("content", [b"", b"torn"])
def test_a_damaged_file_is_put_aside_with_its_reason_and_its_minutes_are_missing(tmp_path, content):
    """Invariant 12: found by looking, without anybody writing to it."""
    rows = [a_candle("BTC_USDT"), a_candle("BAD_USDT")]
    write_batch(tmp_path, rows, [a_verdict("wanted", 0, 1, "BAD_USDT")])
    path = Partition("kline_1m", DAY_0, "BAD_USDT").path(tmp_path)
    path.write_bytes(content)

    before, found = scan_day(tmp_path, DAY_0)

    assert before[CANDLES, "BAD_USDT"].ledger.received == 1
    assert found[CANDLES, "BAD_USDT"].ledger.missing(1) == 1
    assert found[CANDLES, "BTC_USDT"].ledger.stored == 1
    assert not path.exists()
    assert damaged_path(tmp_path, path).read_bytes() == content
    assert damaged_path(tmp_path, path).with_suffix(".damaged.txt").read_text().strip()
    assert [entry.name for entry in path.parent.iterdir()] == ["BTC_USDT_20250405.parquet"]


@pytest.mark.invariant(7)
def test_a_damaged_ledger_is_rebuilt_from_the_files(tmp_path):
    """Invariant 7."""
    write_batch(tmp_path, [a_candle(), a_funding_rate()])
    _, whole = scan_day(tmp_path, DAY_0)
    Partition("ledger", DAY_0).path(tmp_path).write_bytes(b"torn")

    _, found = scan_day(tmp_path, DAY_0)

    assert found == whole


@pytest.mark.invariant(12)
@pytest.mark.parametrize("content", [b"", b"torn", b"x" * 5000, b"PAR1" + b"\xff" * 500 + b"\xf4\x01\x00\x00PAR1"])
def test_a_damaged_file_is_put_aside_and_its_new_rows_are_stored(tmp_path, content):
    """Invariant 12: else the writer would die of it again and again, and store nothing for anybody."""
    path = Partition("kline_1m", DAY_0, "BTC_USDT").path(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)

    written = write_batch(tmp_path, [a_candle("BTC_USDT"), a_candle("ETH_USDT")])

    assert {key.symbol: known.ledger.received for key, known in written[DAY_0].items()} == {
        "BTC_USDT": 1,
        "ETH_USDT": 1,
    }
    assert damaged_path(tmp_path, path).read_bytes() == content


# --- retention


@pytest.mark.invariant(11)
@given(st.lists(st.integers(0, 200), unique=True), st.integers(1, 100), st.sets(st.integers(0, 200)))
def test_only_old_days_that_are_converted_may_go(ages, retention, converted):
    """Invariant 11."""
    raw_days = [DAY_0 - timedelta(days=age) for age in ages]

    gone = retirable(raw_days, DAY_0, retention, lambda day: (DAY_0 - day).days in converted)

    assert {(DAY_0 - day).days for day in gone} == {age for age in ages if age > retention and age in converted}


def _three_days(root):
    store(root, [a_candle(symbol, minute(day * 1440)) for day in range(3) for symbol in ("BTC_USDT", "ETH_USDT")])
    store(root, [a_funding_rate(), a_prediction(), *a_ranking("BTC_USDT").ranks])
    return [DAY_0 + timedelta(days=day) for day in range(3)]


def _digests(root, *chosen):
    converted = ("kline_1m", "funding_predicted")
    return {f"{dataset}/{day}": day_digest(root, dataset, day) for dataset in converted for day in chosen}


@pytest.mark.invariant(11)
def test_a_day_that_is_not_converted_is_kept_however_old(tmp_path):
    """Invariant 11."""
    raw_days = _three_days(tmp_path)

    retire(tmp_path, DAY_0 + timedelta(days=500), 90, {})

    assert days(tmp_path, "kline_1m") == raw_days


@pytest.mark.invariant(11)
def test_a_day_that_changed_since_its_conversion_is_kept(tmp_path):
    """Invariant 11: as it stands, not as it once was."""
    first, second, third = _three_days(tmp_path)
    digests = _digests(tmp_path, first, second)
    store(tmp_path, [a_candle("LATE_USDT", minute(1440 + 5))])

    gone = retire(tmp_path, third + timedelta(days=91), 90, digests).days

    assert first in gone
    assert days(tmp_path, "kline_1m") == [second, third]


@pytest.mark.invariant(11)
def test_what_is_small_and_cannot_be_fetched_again_is_kept_for_ever(tmp_path):
    """Invariant 11: settlements and rankings stay; candles and predictions go once they are in Qlib."""
    raw_days = _three_days(tmp_path)

    retire(tmp_path, DAY_0 + timedelta(days=500), 90, _digests(tmp_path, *raw_days))

    assert days(tmp_path, "kline_1m") == days(tmp_path, "funding_predicted") == []
    assert days(tmp_path, "funding") == days(tmp_path, "universe") == [DAY_0]


def test_a_day_within_the_retention_is_kept(tmp_path):
    raw_days = _three_days(tmp_path)

    retire(tmp_path, DAY_0 + timedelta(days=90), 90, _digests(tmp_path, *raw_days))

    assert day_folder(tmp_path, "kline_1m", DAY_0).exists()


@pytest.mark.invariant(11)
def test_of_a_day_that_is_a_link_its_own_files_go_and_the_link_and_nothing_else(tmp_path):
    """Invariant 11: it leads to another disk, or to a folder with other things."""
    root, disk = tmp_path / "raw", tmp_path / "disk"
    first, *others = _three_days(root)
    folder = day_folder(root, "kline_1m", first)
    folder.rename(disk)
    folder.symlink_to(disk)
    (disk / "notes.txt").write_text("years of work")

    retired = retire(root, DAY_0 + timedelta(days=91), 90, _digests(root, first))

    assert retired.failed == []
    assert first in retired.days
    assert days(root, "kline_1m") == others
    assert not folder.is_symlink()
    assert [path.name for path in disk.iterdir()] == ["notes.txt"]


def test_a_day_that_cannot_be_deleted_is_named_and_the_others_go(tmp_path, monkeypatch):
    raw_days = _three_days(tmp_path)
    stuck = day_folder(tmp_path, "kline_1m", raw_days[0])
    rmtree = shutil.rmtree

    def refuses(folder):
        if folder == stuck:
            raise PermissionError(13, "Permission denied", str(folder))
        rmtree(folder)

    monkeypatch.setattr(shutil, "rmtree", refuses)

    retired = retire(tmp_path, DAY_0 + timedelta(days=500), 90, _digests(tmp_path, *raw_days))

    assert days(tmp_path, "kline_1m") == raw_days[:1]
    assert [str(stuck) in sentence for sentence in retired.failed] == [True]


# --- what stands in the way


def aside(root, folder):
    """Return what lay in a folder and was put aside."""
    return sorted(path.name for path in damaged_path(root, folder / "x").parent.iterdir())


def test_yesterdays_file_under_todays_name_is_put_aside_and_todays_rows_are_stored(tmp_path):
    store(tmp_path, [a_candle(open_time=minute(-1440 + number)) for number in range(5)])
    yesterday, today = (Partition("kline_1m", DAY_0 - timedelta(days=ago), "BTC_USDT").path(tmp_path) for ago in (1, 0))
    today.parent.mkdir(parents=True)
    shutil.copy(yesterday, today.parent / today.name)

    write_batch(tmp_path, [a_candle(open_time=minute(7))])

    assert [row["open_time"] for row in read_rows(Candle, today).to_pylist()] == [minute(7)]
    assert aside(tmp_path, today.parent) == [f"{today.name}.damaged", f"{today.name}.damaged.txt"]
    assert "another day" in damaged_path(tmp_path, today).with_suffix(".damaged.txt").read_text()


@pytest.mark.invariant(12)
@pytest.mark.parametrize("place", ["folder", "link to nowhere", "link in a circle", "link to a folder", "empty file"])
def test_whatever_stands_where_a_file_belongs_is_put_aside_and_stops_nobody(tmp_path, place):
    """Invariant 12."""
    path = Partition("kline_1m", DAY_0, "BTC_USDT").path(tmp_path)
    path.parent.mkdir(parents=True)
    match place:
        case "folder":
            path.mkdir()
        case "link to nowhere":
            path.symlink_to(tmp_path / "nowhere")
        case "link in a circle":
            path.symlink_to(path)
        case "link to a folder":
            path.symlink_to(tmp_path)
        case "empty file":
            path.touch()
    damaged_path(tmp_path, path).mkdir(parents=True)  # the name that it would get is taken, too

    scan_day(tmp_path, DAY_0)
    write_batch(tmp_path, [a_candle(), a_candle("ETH_USDT")])

    assert len(contents(tmp_path)) == 2
    assert path.is_file()
    assert not path.is_symlink()
    assert f"{path.name}.damaged.2" in aside(tmp_path, path.parent)


def test_a_file_where_the_folder_of_a_day_belongs_is_put_aside(tmp_path):
    folder = day_folder(tmp_path, "kline_1m", DAY_0)
    folder.parent.mkdir(parents=True)
    folder.write_text("what?")

    scan_day(tmp_path, DAY_0)
    write_batch(tmp_path, [a_candle()])

    assert len(contents(tmp_path)) == 1
    assert aside(tmp_path, folder.parent) == [f"{folder.name}.damaged", f"{folder.name}.damaged.txt"]


@pytest.mark.parametrize("what", ["file", "link in a circle"])
@pytest.mark.parametrize("dataset", ["kline_1m", "ledger"])
def test_what_stands_where_the_folder_of_a_day_belongs_stops_no_write(tmp_path, dataset, what):
    folder = day_folder(tmp_path, dataset, DAY_0)
    folder.parent.mkdir(parents=True)
    folder.touch() if what == "file" else folder.symlink_to(folder.name)

    scan_day(tmp_path, DAY_0)
    written = write_batch(tmp_path, [a_candle()], [a_verdict("wanted", 0, 1)])

    assert ledger_of(written) == DayLedger(wanted=1, received=1)
    assert f"{folder.name}.damaged" in aside(tmp_path, folder.parent)


@pytest.mark.parametrize(
    "name",
    [
        "date=2026-02-30",
        "date=0000-00-00",
        "date=2025-04-05 (copy)",
        "date=\u0968\u0966\u0968\u096b-\u0966\u096a-\u0966\u096b",
    ],
)
def test_a_folder_that_is_no_day_is_not_one(tmp_path, name):
    (tmp_path / "kline_1m" / name).mkdir(parents=True)
    store(tmp_path, [a_candle()])

    assert days(tmp_path, "kline_1m") == [DAY_0]


def test_one_link_that_leads_nowhere_hides_none_of_its_neighbours(tmp_path):
    store(tmp_path, [a_candle(symbol) for symbol in ("A_USDT", "B_USDT", "C_USDT")])
    folder = day_folder(tmp_path, "kline_1m", DAY_0)
    for name in ("0", "AA", "BB", "CC", "ZZ"):
        (folder / f"{name}_USDT_20250405.parquet").symlink_to(folder / "nowhere")

    assert sorted(file.symbol for file, _ in partitions(tmp_path, "kline_1m", DAY_0)) == ["A_USDT", "B_USDT", "C_USDT"]


@pytest.mark.parametrize("name", ["a b", ".hidden", "x-y", "A_USDT (1)", ""])
def test_a_foreign_file_beside_ours_is_none_of_them(tmp_path, name):
    store(tmp_path, [a_candle()])
    folder = day_folder(tmp_path, "kline_1m", DAY_0)
    (folder / f"{name}_20250405.parquet").write_text("what?")

    assert [file.symbol for file, _ in partitions(tmp_path, "kline_1m", DAY_0)] == ["BTC_USDT"]


# --- folders with names that mean something elsewhere


@pytest.mark.invariant(7)
@pytest.mark.parametrize(
    "name", ["crypto[2025]", "data*", "a?b", "{x,y}", "with space", "100%", "-n", "龙", "a\nb", "~"]
)
def test_names_are_names_whatever_they_would_mean_as_a_pattern(tmp_path, name):
    """Invariant 7: nothing is lost, and nothing else is taken for it."""
    root = tmp_path / name
    store(tmp_path / "data-old", [a_candle("OLD_USDT")])
    write_batch(root, [a_candle()])
    temporary = root / "kline_1m" / ".x.tmp"
    temporary.touch()

    assert [file.symbol for file, _ in partitions(root, "kline_1m", DAY_0)] == ["BTC_USDT"]
    assert len(contents(root)) == 1
    assert remove_stale_temporaries(root) == 1
