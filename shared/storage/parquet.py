"""Parquet files of rows: the Arrow schema of a declaration, reading, merging by identity. pyarrow lives here."""

import hashlib
import os
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache, reduce
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from msgspec import NODEFAULT
from numpy.typing import NDArray

from shared.datasets.candle import Candle
from shared.datasets.ledger import LedgerRow
from shared.datasets.registry import BY_DATASET, columns_of
from shared.datasets.row import Bound, Row
from shared.grid import MINUTE_MS, MINUTES_PER_DAY, day_start, to_ms
from shared.ledger.day import OLD_SETS, SETS
from shared.ledger.minutes import is_mask_text
from shared.storage.files import replace_file
from shared.storage.layout import Partition, signature
from shared.symbol import belongs

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


class ContentError(ValueError):
    """A file that does not hold what it should; the text says why."""


def read_rows(kind: type[Row], path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read a day file (it never changes in place) as the declared columns, or some of them, and verify it.

    A column that a file written before an evolution lacks is read as its default.

    Raises:
        ContentError: it is no file, no Parquet, a column is missing, of another type, or not what was written.
        OSError: the disk does not give it, which says nothing about its content.

    """
    content = _content(path)
    with _of_the_content():
        return _decoded(kind, content, columns)


def read_written(kind: type[Row], path: Path) -> pa.Table:
    """Read a file of rows, of any day, that must say itself what was written, and of what. Raises as `read_rows`."""
    content = _content(path)
    with _of_the_content():
        said = pq.read_schema(pa.BufferReader(content)).metadata or {}
        digests = _digests_in(said)
        rows = _decoded(kind, content, None)
    if not digests:
        raise ContentError("it does not say what was written")
    if said.get(_DATASET) != kind.dataset.encode():
        raise ContentError(f"it does not say that it holds rows of {kind.dataset}")
    return rows


@contextmanager
def _of_the_content() -> Iterator[None]:
    """Turn every error into one of the content: the bytes are in memory, so a decoder can only fail of them."""
    try:
        yield
    except ContentError:
        raise
    except Exception as error:
        raise ContentError(f"it cannot be decoded: {type(error).__name__}: {error}") from error


def _content(path: Path) -> bytes:
    """Read a file whole. A pipe or a device would give bytes for ever, or none."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ContentError("it is no file")
        with os.fdopen(descriptor, "rb", closefd=False) as source:
            return source.read()
    finally:
        os.close(descriptor)


def _decoded(kind: type[Row], content: bytes, columns: list[str] | None) -> pa.Table:
    schema = arrow_schema(kind)
    wanted = columns or schema.names
    file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
    written = file.schema_arrow
    there = [name for name in wanted if name in written.names]
    table = file.read(columns=there)
    table.validate(full=True)  # texts that are no UTF-8 would be found by whoever reads them, later
    digests = _digests_in(written.metadata)
    table = table.replace_schema_metadata(None)
    for name in wanted:
        if name not in there:
            table = table.append_column(schema.field(name), _default(kind, name, table.num_rows, digests))
    try:
        table = table.select(wanted).cast(pa.schema([schema.field(name) for name in wanted]))
    except (ValueError, pa.ArrowNotImplementedError) as error:  # ArrowInvalid is a ValueError
        raise ContentError(f"columns of another type: {error}") from error
    for name in there:
        if name in digests and digests[name] != _digest(table[name]):
            raise ContentError(f"column {name}: not what was written")
        if not schema.field(name).nullable and table[name].null_count:
            raise ContentError(f"column {name}: empty where a value is needed")
    return table


def _default(kind: type[Row], name: str, rows: int, digests: Mapping[str, int]) -> pa.Array:
    """Return a column that an older file lacks. One that was written is none, nor an identity without a default."""
    optional = dict(zip(reversed(kind.__struct_fields__), reversed(kind.__struct_defaults__), strict=False))
    default = optional.get(name, NODEFAULT)
    if name in digests or (default is NODEFAULT and (digests or name in {*kind.key, kind.time})):
        raise ContentError(f"column {name}: missing")
    wanted = arrow_schema(kind).field(name)
    if default is NODEFAULT and not wanted.nullable and pa.types.is_floating(wanted.type):
        default = float("nan")
    empty = default is None or default is NODEFAULT
    return pa.nulls(rows, wanted.type) if empty else pa.repeat(pa.scalar(default, wanted.type), rows)


def read_partition(root: Path, partition: Partition, columns: list[str] | None = None) -> pa.Table:
    """Read a day file, verify it, and check that it holds what its name says. Raises as `read_rows`."""
    kind = BY_DATASET[partition.dataset]
    wanted = columns or arrow_schema(kind).names
    needed = [name for name in kind.bounds if columns is None or name in columns]
    table = read_rows(kind, partition.path(root), list(dict.fromkeys([*wanted, *kind.key, kind.time, *needed])))
    if reason := wrong_content(partition, table):
        raise ContentError(reason)
    return table.select(wanted)


def wrong_content(partition: Partition, table: pa.Table) -> str | None:
    """Return why a table cannot be the rows of a file, or None. Pure.

    Looked at are symbol, exchange, interval, day, grid, order and uniqueness, numbers and sets of minutes. The columns
    of the identity must be there; the others are looked at where they are.
    """
    kind = BY_DATASET[partition.dataset]
    if table.num_rows == 0:
        return "it holds no row"
    if partition.symbol is not None and _holds_other(table, "symbol", partition.symbol):
        return f"it holds rows of another symbol than {partition.symbol}"
    if reason := _of_another_exchange(table, one_symbol=partition.symbol is not None):
        return reason
    if kind is Candle and _holds_other(table, "interval", "1m"):
        return "it holds candles of another interval than 1m"
    if not _are_unique(kind, table):
        return "it holds two rows of one identity"
    return _wrong_time(partition, table) or _impossible_number(kind, table) or _impossible_minutes(kind, table)


def _are_unique(kind: type[Row], table: pa.Table) -> bool:
    times = table[kind.time].cast(pa.int64()).to_numpy()
    if (np.diff(times) > 0).all():  # as in every file of one symbol that is well; grouping takes as long as reading
        return True
    return bool(table.select(list(kind.key)).group_by(list(kind.key)).aggregate([]).num_rows == table.num_rows)


def _of_another_exchange(table: pa.Table, *, one_symbol: bool) -> str | None:
    """Return why the symbols cannot be those of their exchange, or None. one_symbol: all rows are of the same one."""
    named = table.select(["exchange", "symbol"])
    if one_symbol and not _holds_other(table, "exchange", named["exchange"][0]):
        pairs = named.slice(0, 1)
    else:
        pairs = named.group_by(["exchange", "symbol"]).aggregate([])
    for row in pairs.to_pylist():
        if not belongs(row["symbol"], row["exchange"]):
            return f"it holds rows of {row['symbol'][:100]!r} that say {row['exchange'][:100]!r} is its exchange"
    return None


def _holds_other(table: pa.Table, name: str, value: object) -> bool:
    return bool(pc.any(pc.not_equal(table[name], value)).as_py())


def _wrong_time(partition: Partition, table: pa.Table) -> str | None:
    kind = BY_DATASET[partition.dataset]
    times = table[kind.time].cast(pa.int64()).to_numpy()
    midnight = to_ms(day_start(partition.day))
    end = midnight + (1 if kind is LedgerRow else MINUTES_PER_DAY * MINUTE_MS)
    if times.min() < midnight or times.max() >= end:
        return f"it holds rows of another day than {partition.day}"
    if (np.diff(times) < 0).any():
        return "its rows are not in order of time"
    if kind.on_grid and (times % MINUTE_MS != 0).any():
        return "it holds rows off the minute grid"
    return None


def _impossible_minutes(kind: type[Row], table: pa.Table) -> str | None:
    """Look at a ledger's sets of minutes, and what they are about: nonsense would be read as others, or as none."""
    if kind is LedgerRow and "about" in table.schema.names:
        for about in pc.unique(table["about"]).to_pylist():
            if not about or "/" in about:
                return f"about: {about!r} is no dataset"
    for name in (name for name in (*SETS, *OLD_SETS) if kind is LedgerRow and name in table.schema.names):
        for text in pc.unique(table[name]).to_pylist():
            if not is_mask_text(text or ""):
                return f"{name}: {text[:100]!r} is no set of the minutes of a day"
    return None


def _impossible_number(kind: type[Row], table: pa.Table) -> str | None:
    for name, bound in kind.bounds.items():
        if name not in table.schema.names:
            continue
        values = table[name].to_numpy().astype(np.float64, copy=False)
        empty = np.isnan(values)
        if empty.all():  # a column that an older file lacks
            continue
        fits = _within(bound, values)
        if columns_of(kind)[name][1]:
            fits |= empty
        if not fits.all():
            at = table[kind.time][int(np.flatnonzero(~fits)[0])].as_py()
            return f"{name}: {float(values[~fits][0])} at {at:%Y-%m-%d %H:%M} cannot be true"
    if kind is Candle and {"open", "high", "low", "close"} <= set(table.schema.names):
        opened, high, low, close = (table[name].to_numpy() for name in ("open", "high", "low", "close"))
        encloses = (low <= np.minimum(opened, close)) & (high >= np.maximum(opened, close))
        if not encloses.all():
            at = table[kind.time][int(np.flatnonzero(~encloses)[0])].as_py()
            return f"high or low does not enclose open and close at {at:%Y-%m-%d %H:%M}"
    return None


def _within(bound: Bound, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which numbers can be true, as `Bound.holds` does for one."""
    if bound.only:
        return np.isin(values, bound.only)
    fits = (values >= bound.least) & (values <= bound.most)
    return fits | (values == 0) if bound.or_zero else fits


# --- What was written, in the file itself

_DATASET = b"qlib_crypto.dataset"
"""Key of the metadata of a segment: the dataset whose rows it holds. Some have the same columns."""
_DIGESTS = b"qlib_crypto.crc32"
"""Key of the file's metadata: JSON of column → CRC-32 of its values. The checksums of the pages do not cover the names
of the columns, their types and the number of rows; these do."""


def _digests_in(metadata: Mapping[bytes, bytes] | None) -> dict[str, int]:
    """Read the digests; none in a file that was written before there were any."""
    text = (metadata or {}).get(_DIGESTS)
    if text is None:
        return {}
    try:
        return msgspec.json.decode(text, type=dict[str, int])
    except ValueError as error:
        raise ContentError("the digests of its columns cannot be read") from error


def _digest(column: pa.ChunkedArray) -> int:
    """Return the CRC-32 of the values of a column, with their number and where they are absent."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    digest = zlib.crc32(str(len(array)).encode())
    if array.null_count:
        digest = zlib.crc32(np.packbits(array.is_null().to_numpy(zero_copy_only=False)), digest)
    if pa.types.is_string(array.type):
        return _digest_of_texts(array.fill_null("") if array.null_count else array, digest)
    plain = array.cast(pa.int64()) if pa.types.is_timestamp(array.type) else array
    if plain.null_count:
        plain = plain.fill_null(False if pa.types.is_boolean(plain.type) else 0)
    return zlib.crc32(np.ascontiguousarray(plain.to_numpy(zero_copy_only=False)).data.cast("B"), digest)


def _digest_of_texts(texts: pa.Array, digest: int) -> int:
    """Go on with the lengths of texts, then with the texts themselves, one after the other as they lie in memory."""
    _, ends, content = texts.buffers()
    offsets = np.frombuffer(ends, np.int32, len(texts) + 1, texts.offset * 4)
    digest = zlib.crc32(np.diff(offsets).tobytes(), digest)
    return zlib.crc32(memoryview(content)[offsets[0] : offsets[-1]] if content else b"", digest)


def write_parquet(path: Path, table: pa.Table, *, compression: str = "snappy", dataset: str = "") -> None:
    """Write a file, not durably: one row group, with checksums of its pages and of its columns.

    dataset: what the file is to say that it holds, where its place alone does not.
    """
    digests = {name: _digest(table[name]) for name in table.schema.names}
    said = {_DIGESTS: msgspec.json.encode(digests)} | ({_DATASET: dataset.encode()} if dataset else {})
    table = table.replace_schema_metadata(said)
    level = 1 if compression == "zstd" else None
    pq.write_table(table, path, compression=compression, compression_level=level, write_page_checksum=True)


def write_table(path: Path, table: pa.Table, *, sync_folder: bool = True) -> None:
    """Replace a day file durably."""
    replace_file(path, lambda temporary: write_parquet(temporary, table), sync_folder=sync_folder)


# --- Which version of a day file is it?


def version_of(path: Path, status: os.stat_result) -> str:
    """Name the version of a day file: "content@signature".

    The content is that of the columns, as the file itself says, so a copy, or the same rows written again, are the
    same version. It is empty where the file does not say. The signature says cheaply whether to look again.
    """
    return f"{_content_in(path, status)}@{signature(status)}"


def _content_in(path: Path, status: os.stat_result) -> str:
    if not stat.S_ISREG(status.st_mode):
        return ""
    try:
        text = (pq.read_metadata(path).metadata or {}).get(_DIGESTS)
    except (OSError, pa.ArrowException, ValueError):  # damaged, or gone: whoever reads the rows finds out
        return ""
    return "" if text is None else _name_of(text)


def _name_of(digests: bytes) -> str:
    return hashlib.sha256(digests).hexdigest()[:16]
