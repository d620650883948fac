"""Symbols shared out among processes: the same bytes, the same errors, and nobody writes behind a lock's back."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from services.converter.convert import convert
from services.converter.features.asof import AsOf
from services.converter.features.fields import BarRecipe
from services.converter.qlib.damage import Published, held_by
from services.converter.qlib.frequencies import FREQUENCIES
from services.converter.qlib.store import QlibStore
from services.converter.stages import pool as processes
from services.converter.stages.pool import ProcessDiedError, _Inherited, _Worker, processes_for
from services.converter.stages.run import Build, SymbolDays
from services.converter.versions.changing import changing
from services.converter.versions.versions import head_folder
from shared.grid import DAY, day_start
from shared.storage.files import BusyError
from shared.storage.layout import Partition
from shared.storage.segments import RawRows
from tests.support.builders import DAY_0, a_candle, a_funding_rate, minute, store, wait_for
from tests.support.conversions import rebuilt, some_minutes
from tests.support.provider import tree, values
from tests.support.simulator import ROOT

DIES_IN_THE_MIDDLE = """
import json, multiprocessing, sys, time
from pathlib import Path
from services.converter.stages import pool as processes
from services.converter.convert import convert

def stay(symbol, done, total):
    if done:
        print(json.dumps([child.pid for child in multiprocessing.active_children()]), flush=True)
        time.sleep(600)

processes._DAYS_WORTH_A_PROCESS = 1
convert(Path(sys.argv[1]), Path(sys.argv[2]), until=None, processes=2, progress=stay)
"""


@pytest.fixture
def many(raw, monkeypatch):
    """Lay down some symbols of three days, of which each is worth a process."""
    monkeypatch.setattr(processes, "_DAYS_WORTH_A_PROCESS", 1)
    for number in range(16):
        store(raw, some_minutes(f"S{number:02}_USDT", range(number * 7, 3 * 1440)))
    store(raw, [a_funding_rate("S03_USDT", minute(480))])
    return raw


def test_a_process_is_started_only_where_it_has_enough_to_do():
    def days(*counts):
        return {f"S{number}": [DAY_0] * count for number, count in enumerate(counts)}

    assert processes_for(days(2, 3), 8) < 2
    assert processes_for(days(*[365] * 100), 8) == 8
    assert processes_for(days(5000), 8) == 1
    assert processes_for(days(*[365] * 100), 1) == 1


def test_several_processes_write_what_one_writes(many, qlib, tmp_path):
    shares = set()

    report = convert(
        many,
        qlib,
        until=None,
        processes=2,
        progress=lambda *_: shares.update(child.pid for child in multiprocessing.active_children()),
    )

    assert len(shares) == 2
    assert report.bars == sum(3 * 1440 - number * 7 for number in range(16))
    assert tree(qlib) == rebuilt(many, tmp_path / "alone")


def test_a_damaged_file_stops_only_its_day_also_in_another_process(many, qlib):
    Partition("kline_1m", DAY_0, "S05_USDT").path(many).write_bytes(b"torn")

    report = convert(many, qlib, until=None, processes=2)

    assert report.unreadable == ("S05_USDT",)
    assert len(list((qlib / "features").iterdir())) == 16
    assert len(values(qlib, "S05_USDT", "close")) == 2 * 1440


@pytest.mark.invariant(8)
def test_what_cannot_be_is_not_published_from_another_process_either(many, qlib):
    """Invariant 8: its symbol is left out, and no other."""
    convert(many, qlib, until=None)
    known, more = values(qlib, "S08_USDT", "close"), len(values(qlib, "S07_USDT", "close")) + 1440
    store(many, [*some_minutes("S07_USDT", range(3 * 1440, 4 * 1440)), *some_minutes("S08_USDT", range(4300, 4400))])
    store(many, [a_candle("S08_USDT", minute(4400), 100.0, high=1.0)])

    report = convert(many, qlib, until=None, processes=2)

    assert report.unreadable == ("S08_USDT",)
    assert values(qlib, "S08_USDT", "close") == known
    assert len(values(qlib, "S07_USDT", "close")) == more


@pytest.mark.invariant(8)
def test_a_process_that_is_killed_is_reported_and_the_next_run_makes_good(many, qlib, tmp_path):
    """Invariant 8: the kernel ends one process for want of memory."""

    def kill_one(_symbol, done, _total):
        if done == 1:
            multiprocessing.active_children()[0].kill()

    with pytest.raises(ProcessDiedError, match="CONVERT_PROCESSES=1"):
        convert(many, qlib, until=None, processes=2, progress=kill_one)

    assert not list((qlib / "calendars").glob("*"))
    convert(many, qlib, until=None, processes=2)
    assert tree(qlib) == rebuilt(many, tmp_path / "alone")


@pytest.mark.invariant(8)
def test_nobody_else_begins_while_a_process_of_a_killed_converter_still_writes(many, qlib, tmp_path):
    """Invariant 8: the lock outlives the converter until the last of its processes has ended."""
    command = [sys.executable, "-c", DIES_IN_THE_MIDDLE, str(many), str(qlib)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as converter:
        assert converter.stdout is not None
        children = json.loads(converter.stdout.readline())
        for child in children:
            os.kill(child, signal.SIGSTOP)  # as if the disk kept them waiting
        converter.kill()
    assert len(children) == 2

    with pytest.raises(BusyError), changing(qlib):
        pass
    for child in children:
        os.kill(child, signal.SIGCONT)

    wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in children))
    convert(many, qlib, until=None)
    assert tree(qlib) == rebuilt(many, tmp_path / "alone")


@pytest.mark.invariant(3)
@pytest.mark.parametrize("distrusts", [False, True])
def test_a_process_leaves_nothing_that_is_not_durable(raw, qlib, disk, distrusts):
    """Invariant 3: whoever commits knows nothing of what the others have written."""
    store(raw, some_minutes("BTC_USDT", range(1000)))
    convert(raw, qlib, until=None)
    if not distrusts:  # else everything is there already, and may not be durable
        store(raw, some_minutes("BTC_USDT", range(1000, 1440)))
    midnight = day_start(DAY_0)
    published = Published(midnight, midnight, frozenset())
    held = held_by(QlibStore(head_folder(qlib)), "BTC_USDT", (), published)
    _Worker.start(Build(raw, BarRecipe(), midnight, midnight + DAY, published), head_folder(qlib), _Inherited(-1))
    disk.calls.clear()

    _Worker.convert(SymbolDays("BTC_USDT", [DAY_0], AsOf(), {}, {}, RawRows(raw), held), distrusts)

    assert disk.synced(QlibStore(head_folder(qlib)).bin_path("BTC_USDT", "close", FREQUENCIES[0])) >= 0
