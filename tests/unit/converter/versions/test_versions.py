"""Versions and their symlinks on a real disk: who reads what, whatever died."""

import errno
import os
import random
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.converter.versions.changing import changing, check_name
from services.converter.versions.versions import SNAPSHOT_FILE, VersionError, Versions, head_folder
from shared.storage.files import BusyError, exclusive
from tests.support.builders import wait_for
from tests.support.dying import NAMING, Dying, KilledError
from tests.support.simulator import ROOT


@pytest.fixture
def qlib(tmp_path):
    return tmp_path / "qlib_data"


def fill(folder, text):
    """Write two files that belong together: a reader that sees both alike saw a whole version."""
    (folder / "calendars").mkdir(parents=True, exist_ok=True)
    (folder / "features").mkdir(exist_ok=True)
    (folder / "calendars" / "1min.txt").write_text(text)
    (folder / "features" / "close").write_text(text)


def read(path):
    folder = path.resolve()
    texts = {(folder / name).read_text() for name in ("calendars/1min.txt", "features/close")}
    assert len(texts) == 1
    return texts.pop()


def publish(qlib, text):
    with changing(qlib) as versions:
        fill(versions.begin(), text)
        versions.publish()


def start(qlib, text="old"):
    with changing(qlib) as versions:
        fill(versions.head, text)


def freeze(qlib, name):
    with changing(qlib) as versions:
        folder = versions.reserve(name)
        fill(folder, name)
        (folder / SNAPSHOT_FILE).parent.mkdir(exist_ok=True)
        (folder / SNAPSHOT_FILE).write_text("{}")
        versions.finish(folder)


def test_the_first_run_makes_a_version_and_the_names_that_lead_to_it(qlib):
    start(qlib)

    assert qlib.readlink() == Path("qlib_data.versions/head")
    assert (qlib.parent / "qlib_data.versions" / "head").readlink() == Path("v0001")
    assert head_folder(qlib) == qlib.resolve()
    assert read(qlib) == "old"


def test_the_names_hold_wherever_the_parent_folder_is_mounted(qlib, tmp_path):
    start(qlib / "deep" / "qlib_data")

    moved = (qlib / "deep").rename(tmp_path / "elsewhere")

    assert read(moved / "qlib_data") == "old"


@pytest.mark.invariant(8)
def test_a_new_version_is_seen_at_once_and_whole_and_readers_of_the_old_one_stay_there(qlib):
    """Invariant 8."""
    start(qlib)
    reader = qlib.resolve()

    with changing(qlib) as versions:
        building = versions.begin()
        fill(building, "new")
        assert read(qlib) == "old"
        versions.publish()

    assert read(qlib) == "new"
    assert read(reader) == "old"
    assert head_folder(qlib).name == "v0002"


@pytest.mark.invariant(3)
def test_a_version_is_durable_before_it_gets_its_name(qlib, disk):
    """Invariant 3."""
    start(qlib)
    publish(qlib, "new")

    shown = disk.named(head_folder(qlib).parent / "head")
    assert disk.synced(head_folder(qlib) / "features" / "close") < shown
    assert disk.synced(head_folder(qlib) / "features") < shown


def test_a_real_directory_is_the_head_until_a_version_is_needed(qlib):
    fill(qlib, "older installation")

    with changing(qlib) as versions:
        assert versions.head == qlib
    assert not qlib.is_symlink()

    publish(qlib, "new")

    assert read(qlib) == "new"
    assert read(Versions.of(qlib).find("v0001")) == "older installation"


@pytest.mark.parametrize("bind", [False, True])
def test_a_mount_point_is_refused_with_what_to_do_and_stays_as_it_is(qlib, monkeypatch, bind):
    fill(qlib, "volume")
    if bind:  # of the same disk: only the rename finds out
        rename = os.rename
        busy = OSError(errno.EBUSY, "busy")
        monkeypatch.setattr(
            os, "rename", lambda source, *rest: _raise(busy) if source == qlib else rename(source, *rest)
        )
    else:
        monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == qlib)

    with pytest.raises(VersionError, match="mount its parent folder"):
        publish(qlib, "new")

    assert read(qlib) == "volume"
    start(qlib, "goes on")
    assert read(qlib) == "goes on"


def _raise(error):
    raise error


def test_versions_lie_where_the_data_is_not_where_somebody_elses_symlink_is(qlib, tmp_path):
    fill(tmp_path / "big_disk" / "data", "old")
    qlib.symlink_to(tmp_path / "big_disk" / "data")

    publish(qlib, "new")

    assert read(qlib) == "new"
    assert qlib.readlink() == tmp_path / "big_disk" / "data"
    assert (tmp_path / "big_disk" / "data.versions" / "v0002").is_dir()


# --- pin, rollback, prune


def test_a_pinned_snapshot_is_what_readers_see_while_the_converter_goes_on(qlib):
    start(qlib)
    freeze(qlib, "paper")

    with changing(qlib) as versions:
        versions.pin("paper")
    publish(qlib, "new")

    assert read(qlib) == "paper"
    assert read(head_folder(qlib)) == "new"
    with changing(qlib) as versions:
        assert versions.unpin() == "paper"
        assert versions.unpin() is None
    assert read(qlib) == "new"


def test_a_version_cannot_be_pinned_nor_a_snapshot_be_written(qlib):
    start(qlib)
    freeze(qlib, "paper")

    with changing(qlib) as versions:
        with pytest.raises(VersionError, match="no snapshot"):
            versions.pin("v0001")
        with pytest.raises(VersionError, match="pin paper"):
            versions.rollback("paper")
        with pytest.raises(VersionError, match="it has paper, v0001"):
            versions.pin("unknown")


def test_rollback_goes_to_the_version_that_the_head_was_built_from_and_nothing_is_lost(qlib):
    start(qlib, "first")
    with changing(qlib) as versions, pytest.raises(VersionError, match="no version before"):
        versions.rollback()
    publish(qlib, "second")
    with changing(qlib) as versions:
        assert versions.rollback() == "v0001"
    publish(qlib, "third")

    with changing(qlib) as versions:
        assert versions.rollback() == "v0001"
        assert read(qlib) == "first"
        assert versions.rollback("v0003") == "v0003"
    assert read(qlib) == "third"


def test_prune_deletes_what_came_before_the_head_and_nothing_else(qlib):
    start(qlib, "1")
    for text in "2345":
        publish(qlib, text)
    for name in ("a", "b"):
        freeze(qlib, name)
    with changing(qlib) as versions:
        versions.pin("a")
        versions.rollback()  # v0004; v0005 may hold what it lacks
        deleted = versions.prune(1)
        assert [name for name, _ in deleted] == ["v0002", "v0001"]
        assert all(size >= 2 for _, size in deleted)
        assert [entry.name for entry in versions.entries()] == ["a", "b", "v0003", "v0004", "v0005"]

        versions.prune(0, snapshots=True)

        assert [entry.name for entry in versions.entries()] == ["a", "v0004", "v0005"]


OPERATIONS = st.lists(
    st.one_of(
        st.sampled_from(["publish", "rollback", "unpin", "freeze"]),
        st.tuples(st.just("pin"), st.integers(0, 3)),
        st.tuples(st.just("prune"), st.integers(0, 2), st.booleans()),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=40)
@given(OPERATIONS, st.booleans())
def test_whatever_is_done_readers_have_a_whole_version_and_the_converter_a_head(tmp_path_factory, steps, in_place):
    qlib = tmp_path_factory.mktemp("versions") / "qlib_data"
    fill(qlib, "0") if in_place else start(qlib, "0")
    head = "0"
    for number, step in enumerate(steps, start=1):
        pinned = Versions.of(qlib).pinned
        with suppress(VersionError):
            if step == "publish":
                publish(qlib, str(number))
                head = str(number)
            elif step == "freeze":
                freeze(qlib, f"s{number}")
            else:
                with changing(qlib) as versions:
                    if step == "rollback":
                        versions.rollback()
                        head = read(versions.head)
                    elif step == "unpin":
                        versions.unpin()
                    elif step[0] == "pin":
                        versions.pin(f"s{step[1]}")
                    else:
                        versions.prune(step[1], snapshots=step[2])
        after = Versions.of(qlib)
        assert read(after.head) == head
        assert read(qlib) == (after.pinned or head)
        assert after.pinned == pinned or step == "unpin" or step[0] == "pin"


# --- names and locks


@given(st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,20}", fullmatch=True))
def test_a_plain_name_is_taken_unless_it_is_ours(name):
    ours = name.lower() == "head" or (name[0] == "v" and name[1:].isdigit())
    if ours:
        with pytest.raises(VersionError):
            check_name(name)
    else:
        check_name(name)


@pytest.mark.parametrize(
    "name", ["", ".hidden", "a/b", "../x", "head", "HEAD", "v0001", "v12", "a b", "-a", "ä", "a\n"]
)
def test_any_other_name_is_refused(name):
    with pytest.raises(VersionError, match="cannot be called"):
        check_name(name)


def test_a_name_that_is_too_long_is_refused_with_the_longest_that_is_allowed(qlib):
    check_name("a" * 100)

    with pytest.raises(VersionError, match="has 300 characters, and the longest allowed has 100"):
        check_name("a" * 300)


@pytest.mark.parametrize("in_place", [False, True])
def test_only_one_at_a_time_changes_versions(qlib, in_place):
    fill(qlib, "old") if in_place else start(qlib)

    with changing(qlib), pytest.raises(BusyError, match="another converter"), changing(qlib):
        pass
    with (
        exclusive(head_folder(qlib) / ".converter" / "lock", ""),
        pytest.raises(BusyError),  # somebody was given the version's folder itself
        changing(qlib),
    ):
        pass
    with changing(qlib):
        pass


def test_while_a_directory_is_moved_in_nobody_else_gets_hold_of_it(qlib):
    fill(qlib, "old")
    with changing(qlib) as versions:
        fill(versions.begin(), "new")
        with pytest.raises(BusyError), changing(qlib):
            pass
        versions.publish()
        with pytest.raises(BusyError), changing(qlib):
            pass


def test_a_converter_at_work_is_waited_for_and_reported_once(qlib):
    start(qlib)
    program = "import sys, time; from pathlib import Path; from services.converter.versions.changing import changing\n"
    program += f"with changing(Path({str(qlib)!r})): print('held', flush=True); time.sleep(1)"
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    notices = []

    with changing(qlib, patience_seconds=60, waits=lambda: notices.append(1)):
        assert process.wait(10) == 0

    assert notices == [1]
    process.stdout.close()


def test_what_a_living_process_makes_is_not_swept_away_but_what_a_dead_one_left_is(qlib):
    start(qlib)
    with changing(qlib) as versions:
        alive, dead = versions.reserve("alive"), versions.reserve("dead")
    fill(dead, "half")
    with exclusive(alive / ".converter" / "lock", ""), changing(qlib) as versions:
        versions.remove_unfinished()
        with pytest.raises(VersionError, match="is being made"):
            versions.reserve("alive")

    assert alive.exists()
    assert not dead.exists()


# --- who dies


def _prepare(kind, qlib):
    if kind == "in place":
        fill(qlib, "old")
    elif kind != "first":
        start(qlib)
    if kind == "third":
        publish(qlib, "older")
        publish(qlib, "old")


@pytest.mark.invariant(8)
@pytest.mark.parametrize("kind", ["first", "second", "third", "in place"])
def test_killed_at_any_call_of_a_swap_and_run_again_it_is_right(tmp_path, monkeypatch, kind):
    """Invariant 8: at any instant readers have the old version or the new one, but for the move of an old directory."""
    seen, finished, instant = set(), False, 0
    while not finished:
        qlib = tmp_path / str(instant) / "qlib_data"
        qlib.parent.mkdir()
        _prepare(kind, qlib)
        with monkeypatch.context() as dying:
            Dying(dying, NAMING, after=instant)
            try:
                publish(qlib, "new")
                finished = True
            except KilledError:
                pass
        if qlib.exists() and (qlib / "calendars").exists():
            seen.add(read(qlib))
        else:
            assert kind in {"first", "in place"}
        with changing(qlib) as versions:  # the next conversion
            assert versions.head.is_dir()
            if kind != "first":
                assert read(qlib) in {"old", "new"}

        publish(qlib, "newer")

        assert read(qlib) == "newer"
        left = [path.name for path in Versions.of(qlib).folder.iterdir() if path.name.endswith(".unfinished")]
        assert not left
        instant += 1

    assert instant > 15
    assert seen == ({"new"} if kind == "first" else {"old", "new"})


@pytest.mark.invariant(8)
@pytest.mark.parametrize("step", ["pin", "unpin", "rollback", "prune"])
@pytest.mark.parametrize("in_place", [False, True])
def test_killed_at_any_call_of_a_command_and_run_again_it_is_right(tmp_path, monkeypatch, step, in_place):
    """Invariant 8."""
    if in_place and step != "pin":
        return
    finished, instant = False, 0
    while not finished:
        qlib = tmp_path / str(instant) / "qlib_data"
        qlib.parent.mkdir()
        fill(qlib, "1") if in_place else start(qlib, "1")
        if not in_place:
            publish(qlib, "2")
        freeze(qlib, "paper")
        if step == "unpin":
            _do(qlib, "pin")
        with monkeypatch.context() as dying:
            Dying(dying, NAMING, after=instant)
            try:
                _do(qlib, step)
                finished = True
            except KilledError:
                pass
        with suppress(VersionError):  # it had been done
            _do(qlib, step)

        head = "1" if step == "rollback" or in_place else "2"
        assert read(head_folder(qlib)) == head
        assert read(qlib) == ("paper" if step == "pin" else head)
        assert {entry.name for entry in Versions.of(qlib).entries()} >= {head_folder(qlib).name, "paper"}
        instant += 1
    assert instant > 2


def _do(qlib, step):
    with changing(qlib) as versions:
        if step == "pin":
            versions.pin("paper")
        elif step == "prune":
            versions.prune(0)
        else:
            getattr(versions, step)()


SWAPPING = """
import sys
from itertools import count
from pathlib import Path
from services.converter.versions.changing import changing
qlib = Path(sys.argv[1])
for number in count():
    with changing(qlib) as versions:
        folder = versions.begin()
        for part in ("calendars/1min.txt", "features/close"):
            (folder / part).parent.mkdir()
            (folder / part).write_text(f"{sys.argv[2]}-{number}")
        versions.publish()
        versions.prune(3)
"""


@pytest.mark.invariant(8)
def test_a_reader_in_a_loop_never_sees_half_while_the_swapping_process_is_killed_again_and_again(qlib):
    """Invariant 8, with kill -9."""
    start(qlib)
    dice, seen = random.Random(8), {"old"}
    for run in range(4):
        process = subprocess.Popen([sys.executable, "-c", SWAPPING, str(qlib), str(run)], cwd=ROOT)
        before = len(seen)
        end = None
        while end is None or time.monotonic() < end:
            with suppress(FileNotFoundError):  # pruned while it was read: resolved again
                seen.add(read(qlib))
            if end is None and len(seen) > before:
                end = time.monotonic() + dice.random() * 0.3
            assert process.poll() is None
        process.kill()
        process.wait()

    publish(qlib, "last")

    assert read(qlib) == "last"
    assert len(seen) > 4
    wait_for(lambda: not list(Versions.of(qlib).folder.glob(".v*.unfinished")))
