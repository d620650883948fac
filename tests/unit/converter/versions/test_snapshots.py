"""Snapshots of a real conversion, verification of every kind of damage, and the commands, on real files."""

import hashlib
import json
import os
import shutil
import stat
from datetime import UTC, datetime

import numpy as np
import pytest
from typer.testing import CliRunner

from services.converter.convert import convert
from services.converter.versions.__main__ import app
from services.converter.versions.changing import changing
from services.converter.versions.findings import UnverifiableError
from services.converter.versions.snapshots import read_snapshot, take_snapshot
from services.converter.versions.verify import verify
from services.converter.versions.versions import SNAPSHOT_FILE, VersionError, Versions, head_folder
from shared.storage.files import BusyError, exclusive
from tests.support.builders import MIDNIGHT, a_candle, a_funding_rate, minute, store
from tests.support.provider import labels, tree, values

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MINUTES = 3000


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Return a folder with raw data, and what a conversion made of it."""
    folder = tmp_path_factory.mktemp("converted")
    candles = [a_candle("BTC_USDT", minute(number), 100.0 + number % 97) for number in range(MINUTES)]
    candles += [a_candle("ETH_USDT", minute(number), 10.0) for number in range(700, MINUTES) if not 800 <= number < 900]
    store(folder / "okx_data", [*candles, a_funding_rate(funding_time=minute(480))])
    convert(folder / "okx_data", folder / "made", until=None)
    shutil.copytree((folder / "made").resolve(), folder / "provider")
    return folder


@pytest.fixture
def qlib(converted, tmp_path):
    """Give that dataset in the form of versions, to be changed."""
    qlib = tmp_path / "qlib_data"
    with changing(qlib) as versions:
        shutil.copytree(converted / "provider", versions.head, dirs_exist_ok=True)
    return qlib


def freeze(qlib, name="paper", **options):
    return take_snapshot(qlib, name, created=NOW, **options)


# --- snapshots


def test_a_snapshot_is_a_provider_folder_with_what_readers_of_the_head_see(qlib):
    folder, _ = freeze(qlib)

    assert folder == qlib.parent / "qlib_data.versions" / "paper"
    assert tree(folder) == tree(qlib)
    assert len(values(folder, "BTC_USDT", "close")) == MINUTES
    assert labels(folder, "day") == [minute(0), minute(1440)]


def test_the_manifest_says_what_was_frozen(qlib):
    folder, manifest = freeze(qlib)

    said = json.loads((folder / SNAPSHOT_FILE).read_bytes())
    assert read_snapshot(folder) == manifest
    assert (said["name"], said["version"], said["created"]) == ("paper", "v0001", "2026-01-02T03:04:05Z")
    assert said["calendars"]["1min"] == {"first": "2025-04-05 00:00:00", "last": "2025-04-07 01:59:00", "bars": MINUTES}
    assert said["calendars"]["day"] == {"first": "2025-04-05", "last": "2025-04-06", "bars": 2}
    assert said["symbols"]["BTC_USDT"] == {
        "first": "2025-04-05 00:00:00",
        "last": "2025-04-07 01:59:00",
        "coverage": 1.0,
    }
    assert said["symbols"]["ETH_USDT"]["coverage"] == 2200 / 2300
    assert said["coverage"] == 5200 / 5300
    assert {"open", "coverage", "funding_paid"} <= set(said["fields"]["5min"])
    assert {"python", "numpy", "pyarrow", "qlib-crypto"} <= set(said["software"])
    for name, file in said["files"].items():
        content = (folder / name).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (file["sha256"], file["size"])
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == set(said["files"]) | {SNAPSHOT_FILE.as_posix()}


def test_without_a_field_of_coverage_the_closes_are_counted(qlib):
    for path in head_folder(qlib).rglob("coverage.*.bin"):
        path.unlink()

    assert freeze(qlib)[1].coverage == 5200 / 5300


def test_later_patches_of_the_head_do_not_reach_a_snapshot_and_its_files_are_read_only(qlib):
    folder, _ = freeze(qlib)
    before = tree(folder)
    for path in head_folder(qlib).rglob("*.bin"):
        with path.open("r+b") as handle:
            os.pwrite(handle.fileno(), b"\xff" * 8, 4)

    assert tree(folder) == before
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o444 for path in folder.rglob("*") if path.is_file())


def test_where_the_kernel_cannot_copy_the_bytes_are_the_same(qlib, monkeypatch):
    def unable(*_):
        raise OSError(95, "not supported")

    monkeypatch.setattr(os, "copy_file_range", unable)

    assert tree(freeze(qlib)[0]) == tree(qlib)


def test_what_lies_beyond_the_calendar_is_left_out(qlib):
    expected = tree(qlib)
    for path in head_folder(qlib).rglob("*.bin"):
        with path.open("ab") as handle:
            handle.write(np.array([7.0, 8.0], "<f4").tobytes())
    late = head_folder(qlib) / "features" / "new_usdt"
    late.mkdir()
    np.array([MINUTES, 1.0], "<f4").tofile(late / "close.1min.bin")

    folder, manifest = freeze(qlib)

    assert tree(folder) == expected
    assert set(manifest.symbols) == {"BTC_USDT", "ETH_USDT"}


def test_what_a_conversion_left_by_half_is_not_frozen(qlib):
    (head_folder(qlib) / ".converter" / "writing").touch()

    with pytest.raises(VersionError, match="convert again first"):
        freeze(qlib)

    assert [entry.name for entry in Versions.of(qlib).entries()] == ["v0001"]


def test_a_name_is_given_once_and_an_empty_dataset_is_not_frozen(qlib, tmp_path):
    freeze(qlib)
    with pytest.raises(VersionError, match="already"):
        freeze(qlib)
    with pytest.raises(VersionError, match="nothing has been converted"):
        freeze(tmp_path / "empty")


def test_the_converter_may_write_again_while_files_are_digested(qlib):
    seen = []

    def look(what, done, total):
        try:
            with changing(qlib):
                seen.append((what, "free"))
        except BusyError:
            seen.append((what, "held"))

    freeze(qlib, progress=look)

    assert set(seen) == {("copying", "held"), ("counting", "free"), ("digesting", "free")}


class KilledError(BaseException):
    """Stands for the end of the process."""


def test_a_snapshot_that_died_is_not_seen_and_can_be_taken_again(qlib):
    expected = tree(qlib)
    for phase in ("copying", "counting", "digesting"):

        def die(what, done, total, phase=phase):
            if what == phase and done:
                raise KilledError

        with pytest.raises(KilledError):
            freeze(qlib, progress=die)
        assert [entry.name for entry in Versions.of(qlib).entries()] == ["v0001"]

    folder, _ = freeze(qlib)

    assert tree(folder) == expected
    assert not verify(folder, frozen=True).differences


# --- verification


def test_what_a_conversion_made_is_verified_without_a_word(qlib):
    found = verify(head_folder(qlib), frozen=False)

    assert (found.differences, found.notes) == ([], [])
    assert found.files > 200
    folder, _ = freeze(qlib)
    assert verify(folder, frozen=True).differences == []


def rewrite(path, change):
    path.chmod(0o644)
    values = np.fromfile(path, "<f4")
    change(values)
    values.tofile(path)


def put(name, at, value):
    """Return a damage: a value of BTC_USDT is another one. at: counted with the header."""
    return lambda folder: rewrite(folder / "features" / "btc_usdt" / name, lambda values: values.__setitem__(at, value))


def edit(name, change):
    """Return a damage: a text file is another one."""

    def damage(folder):
        (folder / name).chmod(0o644)
        (folder / name).write_text(change((folder / name).read_text()))

    return damage


def cut(name, size):
    return lambda folder: os.truncate(folder / "features" / "btc_usdt" / name, size)


DAMAGES = [
    (put("high.1min.bin", 6, 1.0), "features/btc_usdt/high.1min.bin", "is below low", "2025-04-05 00:05:00"),
    (put("close.5min.bin", 1, 999.0), "features/btc_usdt/close.5min.bin", "is above high", "2025-04-05 00:00:00"),
    (put("open.day.bin", 1, 1.0), "features/btc_usdt/open.day.bin", "is below low", "2025-04-05"),
    (put("volume.60min.bin", 2, -1.0), "features/btc_usdt/volume.60min.bin", "is negative", "2025-04-05 01:00:00"),
    (put("amount.1min.bin", 1, np.inf), "features/btc_usdt/amount.1min.bin", "is infinite", ""),
    (put("coverage.15min.bin", 1, 1.5), "features/btc_usdt/coverage.15min.bin", "is not from 0 to 1", ""),
    (put("open.1min.bin", 4, np.nan), "features/btc_usdt/open.1min.bin", "is there where close is not", "00:03:00"),
    (put("close.1min.bin", 0, 0.5), "features/btc_usdt/close.1min.bin", "does not begin with a position", "0.5"),
    (put("close.1min.bin", 0, -1), "features/btc_usdt/close.1min.bin", "does not begin with a position", "-1"),
    (put("close.1min.bin", 0, 1), "features/btc_usdt/close.1min.bin", "does not hold the bars", "bars 1 to"),
    (cut("vwap.1min.bin", 4 * 100), "features/btc_usdt/vwap.1min.bin", "does not hold the bars", "bars 0 to 98"),
    (cut("vwap.1min.bin", 4 * 100 + 1), "features/btc_usdt/vwap.1min.bin", "no multiple of 4", ""),
    (cut("low.day.bin", 4), "features/btc_usdt/low.day.bin", "holds no value", ""),
    (
        lambda folder: (folder / "features/btc_usdt/low.30min.bin").unlink(),
        "features/btc_usdt/low.30min.bin",
        "is missing",
        "",
    ),
    (
        lambda folder: [path.unlink() for path in (folder / "features/btc_usdt").glob("*.240min.bin")],
        "features/btc_usdt",
        "has no 240min bins",
        "",
    ),
    (
        lambda folder: (folder / "features/btc_usdt/close.2min.bin").write_bytes(b"12345678"),
        "features/btc_usdt/close.2min.bin",
        "is no bin of a frequency",
        "",
    ),
    (lambda folder: shutil.rmtree(folder / "features/btc_usdt"), "instruments/all.txt", "has no bins", "BTC_USDT"),
    (
        edit("instruments/all.txt", lambda text: text.splitlines(keepends=True)[0]),
        "instruments/all.txt",
        "does not name",
        "ETH_USDT",
    ),
    (
        edit("instruments/all.txt", lambda text: text.replace("2025-04-07", "2025-04-06")),
        "instruments/all.txt",
        "does not give the days of BTC_USDT",
        "2025-04-06",
    ),
    (
        edit("instruments/usdt.txt", lambda text: text + "what?\n"),
        "instruments/usdt.txt",
        "is no span",
        "line 3: what?",
    ),
    (lambda folder: (folder / "instruments/all.txt").unlink(), "instruments/all.txt", "is missing", ""),
    (
        lambda folder: (folder / "calendars/notes.txt").write_text("hello"),
        "calendars/notes.txt",
        "is no calendar",
        "",
    ),
    (
        edit("calendars/1min.txt", lambda text: text.replace("00:07:00\n", "00:06:00\n", 1)),
        "calendars/1min.txt",
        "does not rise",
        "line 8",
    ),
    (
        edit("calendars/60min.txt", lambda text: text.replace("05 03:00:00", "05 03:30:00")),
        "calendars/60min.txt",
        "is off the grid",
        "line 4",
    ),
    (
        edit("calendars/day.txt", lambda text: text.split("\n", 1)[1]),
        "calendars/day.txt",
        "does not begin at the midnight",
        "2025-04-06",
    ),
    (
        edit("calendars/5min_future.txt", lambda text: text.split("\n", 1)[1]),
        "calendars/5min_future.txt",
        "does not extend",
        "",
    ),
    (lambda folder: (folder / "calendars/day_future.txt").unlink(), "calendars/day_future.txt", "is missing", ""),
]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(("damage", "file", "what", "where"), DAMAGES)
def test_every_damage_is_found_and_named(qlib, damage, file, what, where, frozen):  # noqa: PLR0917 - a table
    folder = freeze(qlib)[0] if frozen else head_folder(qlib)
    damage(folder)

    found = verify(folder, frozen=frozen)

    assert [one for one in found.differences if one.file == file and what in one.what and where in one.where]
    if frozen:  # also the manifest knows of it
        assert [one for one in found.differences if any(word in one.what for word in ("manifest", "frozen", "missing"))]


def test_in_a_snapshot_every_changed_missing_and_additional_file_is_named(qlib):
    folder, _ = freeze(qlib)
    put("vwap.1min.bin", 9, 100.5)(folder)  # a plausible value
    (folder / ".converter" / "manifest.json").unlink()
    (folder / "instruments" / "mine.txt").touch()

    found = verify(folder, frozen=True)

    assert [(one.file, one.what.split(":")[0]) for one in found.differences] == [
        (".converter/manifest.json", "is missing"),
        ("instruments/mine.txt", "is not in the manifest"),
        ("features/btc_usdt/vwap.1min.bin", "is not what was frozen"),
    ]


def test_how_often_something_is_wrong_is_counted(qlib):
    rewrite(head_folder(qlib) / "features/btc_usdt/low.1min.bin", lambda values: values.__setitem__(slice(11, 21), 1e6))

    found = verify(head_folder(qlib), frozen=False)

    assert {(one.what, one.count) for one in found.differences} == {("is below low", 10)}


def test_bars_beyond_the_calendar_are_noted_in_a_version_and_wrong_in_a_snapshot(qlib):
    folder, _ = freeze(qlib)
    for root in (head_folder(qlib), folder):
        path = root / "features" / "btc_usdt" / "close.1min.bin"
        path.chmod(0o644)
        with path.open("ab") as handle:
            handle.write(b"\0" * 8)

    live, frozen = verify(head_folder(qlib), frozen=False), verify(folder, frozen=True)

    assert live.differences == []
    assert live.notes == ["1 1min bins reach beyond the calendar: a conversion did not end"]
    assert ("reaches beyond the calendar", 2) in {(one.what, one.count) for one in frozen.differences}


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff"])
def test_without_its_manifest_a_snapshot_cannot_be_verified(qlib, content):
    folder, _ = freeze(qlib)
    (folder / SNAPSHOT_FILE).unlink()
    if content is not None:
        (folder / SNAPSHOT_FILE).write_bytes(content)

    with pytest.raises(UnverifiableError, match=r"snapshot\.json"):
        verify(folder, frozen=True)


# --- the commands


@pytest.fixture
def run(qlib, monkeypatch):
    monkeypatch.setenv("QLIB_DIR", str(qlib))

    def run(*arguments, code=0):
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == code, result.output
        return result.output

    return run


def test_the_commands_say_what_they_did(qlib, run):
    assert "2 symbols, coverage 98.1132%" in run("snapshot", "paper")
    assert "no difference" in run("verify", "paper")
    assert "v0001: " in run("verify")
    assert "shows paper" in run("pin", "paper")
    rows = {line.split()[0]: line.split() for line in run("list").splitlines()[1:]}
    assert rows["paper"][1:6] == ["snapshot", "2025-04-05", "2025-04-07", "01:59", "2"]
    assert rows["paper"][-1] == "pinned"
    assert rows["v0001"][-1] == "head"
    assert "paper is no longer shown" in run("unpin")
    with changing(qlib) as versions:
        shutil.copytree(
            versions.head, versions.begin(), dirs_exist_ok=True, ignore=shutil.ignore_patterns(".converter")
        )
        versions.publish()
    assert "the head was v0002 and is v0001; v0002 is kept" in run("rollback")
    assert "was v0001 and is v0002" in run("rollback", "v0002")
    size = sum(path.stat().st_size for path in Versions.of(qlib).find("v0001").rglob("*") if path.is_file())
    assert f"deleted v0001: {size:,} bytes" in run("prune", "--keep", "0")
    assert "0 deleted" in run("prune", "--keep", "0")


def test_verify_ends_with_0_1_or_3(qlib, run):
    run("snapshot", "paper")
    run("verify", "paper")
    folder = Versions.of(qlib).find("paper")
    put("high.1min.bin", 6, 1.0)(folder)
    said = run("verify", "paper", code=1)
    assert "features/btc_usdt/high.1min.bin: is below low (2025-04-05 00:05:00: open 105, high 1," in said
    assert "is not what was frozen" in said
    (folder / SNAPSHOT_FILE).unlink()
    run("verify", "paper", code=3)
    run("verify", "unknown", code=3)
    with exclusive(head_folder(qlib) / ".converter" / "lock", ""):
        assert "another converter" in run("verify", "head", "--wait", "0.3", code=3)
        assert "waiting for the converter" in run("snapshot", "late", "--wait", "0.3", code=1)


def test_a_command_does_not_begin_a_dataset(tmp_path, run, monkeypatch):
    monkeypatch.setenv("QLIB_DIR", str(tmp_path / "none"))

    for command in (["list"], ["snapshot", "a"], ["pin", "a"], ["unpin"], ["rollback"], ["prune"]):
        assert "there is no dataset yet" in run(*command, code=3)

    assert not list(tmp_path.glob("none*"))


def test_a_snapshot_that_was_copied_away_is_verified_there(qlib, run, tmp_path, monkeypatch):
    shutil.copytree(freeze(qlib)[0], tmp_path / "elsewhere")
    monkeypatch.setenv("QLIB_DIR", str(tmp_path / "elsewhere"))

    assert "no difference" in run("verify")


# --- the origin


def test_the_origin_moves_in_a_version_beside_and_the_old_one_stays_byte_for_byte(qlib):
    from services.converter.qlib.frequencies import FREQUENCIES
    from services.converter.qlib.rebase import with_span
    from services.converter.qlib.store import QlibStore
    from shared.grid import DAY

    reader, before = qlib.resolve(), tree(qlib)
    with changing(qlib) as versions:
        same = QlibStore(versions.head)
        _, end = same.span()
        assert with_span(same, (MIDNIGHT, end), versions.begin) is same
        moved = with_span(same, (MIDNIGHT - 3 * DAY, end), versions.begin)
        assert tree(qlib) == before
        versions.publish()

    assert tree(reader) == before
    assert labels(qlib, "1min")[0] == minute(-3 * 1440)
    assert moved.root != qlib.resolve()
    for frequency in FREQUENCIES:
        for symbol in ("BTC_USDT", "ETH_USDT"):
            close = values(qlib, symbol, "close", frequency.name)
            assert close == values(reader, symbol, "close", frequency.name)
            assert close
    assert not verify(qlib.resolve(), frozen=False).differences
