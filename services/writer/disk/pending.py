"""What does the ledger say of rows that are in no day file yet? Of numbered rows the caller reads what lies beside.

A minute that is stored stays stored, so what segments add is united with what the ledger's file says. A row that
replaces one of another source is counted for both until the files are merged; which of the two stays is decided then.
"""

from collections.abc import Callable, Iterable, Mapping

import pyarrow as pa

from services.writer.disk.ledger import ByDay, DayRecord, Key, Records, unite, united
from services.writer.disk.stored import Stored, instants, minutes
from shared.datasets.channel import DueInstants, EveryMinute, Sequence
from shared.datasets.ledger import LedgerRow, Verdict
from shared.datasets.registry import COMPLETENESS
from shared.datasets.row import Row
from shared.ledger.day import by_day, from_row, to_row
from shared.storage.layout import Partition
from shared.storage.segments import by_partition
from shared.symbol import Symbol


def rows_of_verdicts(verdicts: Iterable[Verdict]) -> list[LedgerRow]:
    """Return what some verdicts add to the ledger, a row for each dataset, symbol and day."""
    found: ByDay = {}
    for verdict in verdicts:
        for day, about, added in by_day(verdict):
            record = DayRecord(verdict.exchange, added)
            unite(found, {day: {Key(about, symbol): record for symbol in verdict.symbols}})
    return [
        to_row(one.exchange, Symbol(key.symbol), day, one.ledger, "", about=key.dataset)
        for day, records in found.items()
        for key, one in records.items()
    ]


def added_by(kind: type[Row], rows: pa.Table, numbered: Callable[[Partition], ByDay]) -> ByDay:
    """Return what rows of a segment add to the ledger: nothing, where no account is kept of their dataset.

    numbered: returns what is stored of a day of numbered rows and of the days beside it, rows of segments among them.
    Whether a minute of these is whole depends on all rows around it.
    """
    found: ByDay = {}
    rule = COMPLETENESS.get(kind.dataset)
    if rule is None and kind is not LedgerRow:
        return found
    for file, part in by_partition(kind, rows).items():
        match rule:
            case EveryMinute():
                added = {file.day: _records(file, minutes(file, part))}
            case DueInstants():
                added = {file.day: _records(file, instants(file, part))}
            case Sequence():
                added = numbered(file)
            case _:
                added = {file.day: verdicts_in(part)}
        unite(found, added)
    return found


def _records(file: Partition, stored: Iterable[Stored]) -> Records:
    return {Key(file.dataset, one.symbol): DayRecord(one.exchange, one.ledger) for one in stored}


def verdicts_in(rows: pa.Table) -> Records:
    """Return what rows of the ledger say, of one day."""
    found: Records = {}
    for row in rows.to_pylist():
        for about, ledger in from_row(row):
            key = Key(about, row["symbol"])
            found[key] = united(found.get(key), DayRecord(row["exchange"], ledger))
    return found


def with_pending(disk: Mapping[Key, DayRecord], added: Mapping[Key, DayRecord]) -> Records:
    """Return what is known of a day: by the files, and by segments."""
    return {**disk, **only_with(disk, added)}


def only_with(known: Mapping[Key, DayRecord], added: Mapping[Key, DayRecord]) -> Records:
    """Return the records to which something is added, as they are then."""
    return {key: united(known.get(key), one) for key, one in added.items()}
