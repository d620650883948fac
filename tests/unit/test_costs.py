"""What is done all the time costs what it cost, and no more on a longer history: counts, which no load changes.

Seconds say as much of the machine as of the code, so they are measured by `make bench` and asserted nowhere. Counts are
the same on every machine: calls of Python functions, files opened, syncs, bytes written. A band holds what another
version of a library may change, and no doubling.
"""

import asyncio
import random
from datetime import datetime, timedelta

import pytest

from proofs.bench.frames import Collector, frames_of
from proofs.bench.sweep import Rounds
from services.converter.convert import convert
from services.converter.features.fields import FIELDS
from services.converter.memory import Memory
from services.writer.batch import Batch
from services.writer.disk.store import RawStore
from shared.datasets.candle import Candle
from shared.datasets.funding import PredictedFundingRate
from shared.symbol import parse_symbol
from tests.support.builders import a_candle, a_prediction, an_entry, minute, store
from tests.support.conversions import some_minutes
from tests.support.counting import IS_COUNTABLE, Counts, counted

pytestmark = pytest.mark.skipif(not IS_COUNTABLE, reason="the kernel counts no bytes here: there is no /proc/self/io")

SYMBOLS = [f"S{number:03d}_USDT" for number in range(500)]
FUNDED = SYMBOLS[:50]
"""Those of which a prediction comes with the candles of a minute."""
DAY = 1440


def about(usual: float, count: float, what: str) -> None:
    """Fail where a count is not about the usual one: from half of it to half as much again."""
    assert count <= 1.5 * usual, (
        f"{what}: {count:g}, usually {usual:g}. Something that is done all the time has become dearer. "
        "If it is worth that, the commit says why, and the new number stands here."
    )
    assert count >= 0.5 * usual, (
        f"{what}: {count:g}, usually {usual:g}. Is it cheaper, or is something left out, such as a sync? "
        "If it is cheaper, the new number stands here, so that it stays so."
    )


def same(one: float, other: float, what: str) -> None:
    """Fail where a count depends on what was there before."""
    assert abs(one - other) <= 0.1 * max(one, other), f"{what}: {one:g} on little, {other:g} on much that is there"


# --- The writer


def candles(symbols, numbers, seed=1):
    """Return candles with digits as a market has them: what repeats is compressed away."""
    dice = random.Random(seed)
    found = []
    for number in numbers:
        for symbol in symbols:
            price, volume = round(dice.uniform(90, 110), 4), round(dice.expovariate(0.1), 3)
            late = timedelta(milliseconds=dice.randrange(61_000, 62_000))
            found.append(
                a_candle(
                    symbol,
                    minute(number),
                    price,
                    volume=volume,
                    amount=volume * price,
                    contracts=round(volume * 100, 1),
                    receive_time=minute(number) + late,
                )
            )
    return found


def a_minute(number):
    """Return what comes in a minute: a candle of each symbol, a prediction of some."""
    predictions = [a_prediction(symbol, known_time=minute(number)) for symbol in FUNDED]
    return {Candle: candles(SYMBOLS, [number], seed=number), PredictedFundingRate: predictions}


def merged(raw: RawStore) -> Counts:
    """Merge what is in segments; return what that took."""
    chosen = raw.begin_compaction()
    with counted() as counts:
        raw.merge(chosen)
        raw.end_compaction(chosen)
    return counts


def flushed(raw: RawStore) -> Counts:
    """Append the rows of a minute, the third one in a row; return what that took."""
    for number in (DAY - 3, DAY - 2):  # the first ones make folders, and fill caches
        raw.append(a_minute(number))
    rows = a_minute(DAY - 1)
    with counted() as counts:
        raw.append(rows)
    return counts


@pytest.fixture(scope="module")
def flushes(tmp_path_factory):
    """Count a flush into an empty folder, one into a folder with most of a day, and the merge of that day."""
    empty, full = (RawStore(tmp_path_factory.mktemp(name)) for name in ("empty", "full"))
    for raw in (empty, full):
        raw.recover()
    rows = candles(SYMBOLS[:20], range(DAY - 10))
    full.append({Candle: rows})
    merge = merged(full)
    return flushed(empty), flushed(full), merge, len(rows)


def test_a_flush_syncs_a_file_and_a_folder_of_each_dataset_and_no_more(flushes):
    """So many fsyncs a minute, however many symbols there are."""
    assert flushes[0].synced == 4


def test_a_flush_opens_few_files_however_many_symbols_it_is_of(flushes):
    about(4, flushes[0].opened, "files opened by a flush of 500 symbols")


def test_a_flush_writes_its_rows_and_little_more(flushes):
    rows = len(SYMBOLS) + len(FUNDED)

    about(61, flushes[0].written / rows, "bytes written for a row")


def test_a_flush_calls_few_functions_for_each_row(flushes):
    rows = len(SYMBOLS) + len(FUNDED)

    about(31, flushes[0].calls / rows, "Python calls for a row that becomes durable")


@pytest.mark.parametrize("what", ["calls", "opened", "synced", "written"])
def test_a_flush_costs_the_same_whatever_is_stored_already(flushes, what):
    empty, full, *_ = flushes

    same(getattr(empty, what), getattr(full, what), f"{what} by a flush")


def test_a_merge_writes_each_row_once(flushes):
    *_, merge, rows = flushes

    about(56, merge.written / rows, "bytes written for a row that is merged into a day file")


def test_a_merge_syncs_each_file_and_folder_once(flushes):
    about(25, flushes[2].synced, "syncs of a merge into 20 day files")


def test_a_merge_works_on_columns_not_on_rows(flushes):
    *_, merge, rows = flushes

    about(0.45, merge.calls / rows, "Python calls for a row that is merged into a day file")


def test_an_entry_of_the_bus_is_decoded_and_batched_in_a_few_calls():
    batch = Batch()
    entries = [an_entry(one, number) for number, one in enumerate(candles(SYMBOLS, [0, 1]), start=1)]
    for entry in entries[: len(SYMBOLS)]:
        batch.add(entry, entry.event(), 0.0)

    with counted() as counts:
        for entry in entries[len(SYMBOLS) :]:
            batch.add(entry, entry.event(), 0.0)

    about(11, counts.calls / len(SYMBOLS), "Python calls for an entry that the writer reads")


# --- The collector


@pytest.fixture(scope="module")
def frames():
    """Return kind of frame → Python calls for one."""

    async def count() -> dict[str, float]:
        names = [parse_symbol(name) for name in SYMBOLS[:100]]
        collector, found = Collector(names), {}
        await collector.subscribe()
        handle = collector.handler()
        for number in range(3):  # the last one counts: the first ones fill caches
            for kind, confirm in (("first of its candle", "0"), ("forming", "0"), ("closed", "1")):
                made = frames_of(names, number, confirm)
                with counted() as counts:
                    for frame in made:
                        await handle(frame)
                found[kind] = counts.calls / len(made)
        assert collector.encoded == 3 * len(names)
        return found

    return asyncio.run(count())


@pytest.mark.parametrize(("kind", "usual"), [("first of its candle", 18), ("forming", 16), ("closed", 28)])
def test_a_frame_goes_through_the_collector_in_a_few_calls(frames, kind, usual):
    about(usual, frames[kind], f"Python calls for a frame, {kind}, from cryptofeed's callback to the encoded event")


def test_what_the_collector_repeats_follows_the_symbols_not_the_days_behind_them():
    found = []
    for days in (1, 60):
        rounds = Rounds(20, days)
        list(rounds.measure(1))
        with counted() as counts:
            list(rounds.measure(1))
        found.append(counts.calls)

    same(*found, "Python calls of a minute of sweeps, reports and looks at the ledger")


# --- The converter


def a_dataset(folder, days: int, symbols: int = 3):
    """Return raw days and a dataset that holds all but the last."""
    raw, qlib = folder / "okx_data", folder / "qlib_data"
    for symbol in SYMBOLS[:symbols]:
        store(raw, some_minutes(symbol, range(days * DAY)))
    convert(raw, qlib, until=minute((days - 1) * DAY))
    return raw, qlib


def of_a_minute(raw, qlib, days: int) -> Counts:
    """Convert minute by minute, as the service does; return what the last one took, but for the calendar.

    A calendar is one file that is replaced as a whole: it is copied, 20 bytes for each minute that there is.
    """
    memory, noon = Memory(), (days - 1) * DAY + 661  # no longer bar ends in the next minutes
    for ahead in range(2):
        convert(raw, qlib, until=minute(noon + ahead), memory=memory)
    with counted() as counts:
        convert(raw, qlib, until=minute(noon + 2), memory=memory)
    counts.written -= (qlib / "calendars" / "1min.txt").stat().st_size
    return counts


def of_a_late_row(raw, qlib, until: datetime) -> Counts:
    """Convert after one row of the first day has become another."""
    convert(raw, qlib, until=until)
    for number in range(2):  # the second one counts
        store(raw, [a_candle(SYMBOLS[0], minute(100), 50.0 + number, receive_time=minute(20 * DAY + number))])
        with counted() as counts:
            convert(raw, qlib, until=until)
    return counts


@pytest.fixture(scope="module")
def conversions(tmp_path_factory):
    """Return days of history → what one more minute took, and a late row after it."""
    found = {}
    for days in (2, 8):
        raw, qlib = a_dataset(tmp_path_factory.mktemp(f"days{days}"), days)
        found[days] = of_a_minute(raw, qlib, days), of_a_late_row(raw, qlib, minute(days * DAY))
    return found


def test_one_more_minute_syncs_a_bin_of_each_field_and_no_longer_bar(conversions):
    about(3 * len(FIELDS) + 2, conversions[2][0].synced, "syncs for one more minute of 3 symbols")


def test_one_more_minute_opens_few_files(conversions):
    about(220, conversions[2][0].opened, "files opened for one more minute of 3 symbols")


def test_one_more_minute_takes_few_calls(conversions):
    about(9_800, conversions[2][0].calls, "Python calls for one more minute of 3 symbols")


def test_one_more_minute_writes_its_values_and_the_calendar(conversions):
    written, values = conversions[2][0].written, 3 * len(FIELDS) * 4

    assert written <= 5 * values, f"{written} bytes written for one more minute of 3 symbols, which is {values} bytes"


def test_one_late_row_syncs_the_bins_of_its_symbol_alone(conversions):
    about(27, conversions[2][1].synced, "syncs for a late row")


def test_one_late_row_opens_few_files(conversions):
    about(740, conversions[2][1].opened, "files opened for a late row of one of 3 symbols")


def test_one_late_row_takes_few_calls(conversions):
    about(16_100, conversions[2][1].calls, "Python calls for a late row of one of 3 symbols")


@pytest.mark.parametrize("place", [0, 1], ids=["one more minute", "a late row"])
@pytest.mark.parametrize("what", ["calls", "opened", "synced", "written"])
def test_a_conversion_costs_the_same_on_a_longer_history(conversions, place, what):
    little, much = (getattr(conversions[days][place], what) for days in (2, 8))

    same(little, much, f"{what} by a conversion")
