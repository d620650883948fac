"""`qlib-crypto docs columns`: prints the columns of every raw dataset, from the declarations, as Markdown."""

from shared.datasets.registry import BY_DATASET
from shared.storage.parquet import arrow_schema


def columns() -> str:
    """Return a section for every dataset: identity of a row, file of a day, and each column with its type."""
    return "\n".join(_section(dataset) for dataset in sorted(BY_DATASET))


def _section(dataset: str) -> str:
    kind = BY_DATASET[dataset]
    rows = [f"| `{column.name}` | {column.type} |" for column in arrow_schema(kind)]
    head = [
        f"### `{dataset}`\n",
        f"{(kind.__doc__ or '').partition(chr(10))[0]}\n",
        f"- File: `{dataset}/date=YYYY-MM-DD/{kind.file_stem or 'SYMBOL'}_YYYYMMDD.parquet`.",
        f"- Identity of a row: {', '.join(f'`{name}`' for name in kind.key)}.",
        f"- Day of a row: the UTC day of `{kind.time}`.\n",
        "| column | type |\n|---|---|",
    ]
    return "\n".join([*head, *rows, ""])
