"""Which raw files are scanned again: what is remembered of a day's folder never hides a file that was replaced."""

import os
import time
from datetime import timedelta

from services.converter.manifest import Manifest, after
from services.converter.raw.files import scan
from shared.datasets.candle import Candle
from shared.grid import DAY, day_start
from shared.storage.layout import Partition, day_folder
from tests.support.builders import DAY_0, store
from tests.support.conversions import some_minutes

BTC = Partition("kline_1m", DAY_0, "BTC_USDT")


def an_old_day(raw):
    """Store a day, and let a minute pass for its folder."""
    store(raw, some_minutes("BTC_USDT", range(1440)) + some_minutes("ETH_USDT", range(1440)))
    _age(raw)
    return BTC.path(raw)


def _age(raw, seconds=60):
    before = time.time() - seconds
    os.utime(day_folder(raw, "kline_1m", DAY_0), (before, before))


def converted(raw):
    """Return the manifest of a conversion of all that is there."""
    midnight = day_start(DAY_0)
    return after(scan(raw, {}), Manifest(), {}, span=(midnight, midnight + DAY), recipe="", left={})


def seen(raw, manifest, **options):
    return scan(raw, manifest.days, **options).of(Candle)[DAY_0].versions["BTC_USDT"]


def test_a_day_in_which_no_name_has_changed_is_not_scanned_again(raw, monkeypatch):
    path = an_old_day(raw)
    manifest = converted(raw)
    scanned = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: scanned.append(str(folder)) or scandir(folder))

    listing = scan(raw, manifest.days)

    assert str(path.parent) not in scanned
    assert set(listing.of(Candle)[DAY_0].versions) == {"BTC_USDT", "ETH_USDT"}


def test_a_file_that_was_replaced_is_seen(raw):
    an_old_day(raw)
    manifest = converted(raw)
    before = seen(raw, manifest)

    store(raw, some_minutes("BTC_USDT", [700], price=7000.0))

    assert seen(raw, manifest) != before


def test_a_folder_that_changed_just_now_may_change_once_more_unseen_so_it_is_not_trusted(raw):
    path = an_old_day(raw)
    _age(raw, seconds=1)
    manifest = converted(raw)
    before, stat = seen(raw, manifest), path.parent.stat()

    store(raw, some_minutes("BTC_USDT", [700], price=7000.0))
    os.utime(path.parent, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # within the same tick of the file system's clock

    assert seen(raw, manifest) != before


def test_a_file_modified_in_place_is_found_by_a_scan_of_every_file(raw):
    path = an_old_day(raw)
    manifest = converted(raw)
    before = seen(raw, manifest)

    with path.open("ab") as handle:
        handle.write(b"more")

    assert seen(raw, manifest) == before
    assert seen(raw, manifest, every_file=True) != before


def test_a_day_that_is_not_whole_in_qlib_is_scanned_again(raw):
    an_old_day(raw)
    midnight = day_start(DAY_0)
    listing = scan(raw, {})

    in_the_middle = after(listing, Manifest(), {}, span=(midnight, midnight + timedelta(hours=5)), recipe="", left={})
    but_for_one = after(listing, Manifest(), {}, span=(midnight, midnight + DAY), recipe="", left={"BTC_USDT": [DAY_0]})

    assert not in_the_middle.days
    assert but_for_one.days["kline_1m/2025-04-05"].changed_ns == 0
    assert set(but_for_one.days["kline_1m/2025-04-05"].versions) == {"ETH_USDT"}
