"""Parquet files of rows: the Arrow schema of a declaration, reading, merging by identity. pyarrow lives here."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache, reduce
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shared.durable import replace_file
from shared.events import Row, columns_of

_ARROW = {
    str: pa.string(),
    float: pa.float64(),
    int: pa.int32(),
    bool: pa.bool_(),
    datetime: pa.timestamp("ms", tz="UTC"),
}


@cache
def arrow_schema(kind: type[Row]) -> pa.Schema:
    """Derive the columns of a dataset from the declaration of its rows, in the declared order."""
    return pa.schema([pa.field(name, _ARROW[plain], nullable=may) for name, (plain, may) in columns_of(kind).items()])


def table_of(kind: type[Row], rows: Sequence[Row]) -> pa.Table:
    """Turn rows into columns."""
    schema = arrow_schema(kind)
    columns = [pa.array([getattr(row, name) for row in rows], type=schema.field(name).type) for name in schema.names]
    return pa.Table.from_arrays(columns, schema=schema)


def merge(kind: type[Row], stored: pa.Table | None, fresh: pa.Table) -> pa.Table:
    """Merge two tables by identity: sorted, unique, the newest knowledge wins.

    The result does not depend on the order of arrival nor on how often a copy arrives: rows are ordered by key, then
    `newest`, then every other column, and the last of each key stays.
    """
    table = fresh if stored is None else pa.concat_tables([stored, fresh])
    if table.num_rows == 0:
        return table
    # Time before symbol: a file of many symbols reads as a timeline, and min/max statistics prune by time.
    leading = [kind.time, *(name for name in kind.key if name != kind.time), kind.newest]
    order = list(dict.fromkeys([*leading, *table.schema.names]))
    table = table.sort_by([(name, "ascending") for name in order]).combine_chunks()
    earlier, later = table.slice(0, table.num_rows - 1), table.slice(1)
    differs = reduce(pc.or_, (pc.not_equal(earlier[name], later[name]) for name in kind.key))
    last_of_key = pa.chunked_array([*differs.chunks, pa.array([True])])
    return table.filter(last_of_key)


def read_rows(kind: type[Row], path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a day file whole (it never changes in place), as the declared columns.

    A column that a file written before an evolution lacks is read as nulls.
    """
    schema = arrow_schema(kind)
    wanted = columns or schema.names
    with pa.OSFile(str(path), "rb") as source:
        file = pq.ParquetFile(source)
        table = file.read(columns=[name for name in wanted if name in file.schema_arrow.names])
    for name in wanted:
        if name not in table.schema.names:
            table = table.append_column(schema.field(name), pa.nulls(table.num_rows, schema.field(name).type))
    return table.select(wanted).cast(pa.schema([schema.field(name) for name in wanted]))


def write_table(path: Path, table: pa.Table, *, sync_folder: bool = True) -> None:
    """Replace a day file durably: snappy, one row group."""
    replace_file(
        path,
        lambda temporary: pq.write_table(table, temporary, compression="snappy"),
        sync_folder=sync_folder,
    )
