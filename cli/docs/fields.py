"""`python -m cli.docs.fields`: prints docs/fields.md, what every field of the dataset means."""

from cli.place import ROOT
from services.converter.features.fields import as_markdown
from services.converter.qlib.frequencies import FREQUENCIES

TABLE = ROOT / "docs" / "fields.md"

_TEXT = """# Fields

What Qlib finds under `features/<symbol>/<field>.<frequency>.bin`, for every field and each of the frequencies
{frequencies}. `make fields` writes this page from
[services/converter/features/fields.py](../services/converter/features/fields.py), where a new field is one row.

{table}
- A bar is labelled by its **open, UTC**; it closes when the next one opens. A day is a UTC day.
  Everything is derived from closed 1-minute candles.
- **Prices and amounts** exist where the bar is whole: for each of its minutes there is a candle, or the ledger says
  that the exchange has none (absent or halted). Else they are NaN: it is not known what the missing ones would change.
  `PARTIAL_BARS=keep` computes them from the minutes that there are.
- **The other fields** exist in every bar with at least one candle, whole or not. `$funding_paid` exists also in a bar
  without one, if funding was settled inside it and the day has an earlier candle: who holds a position through a halt
  pays all the same.
- Nothing is known too early: a rate settled, or a prediction published, at the very instant of a close belongs to the
  next bar. A prediction counts until its settlement, and only until a newer one replaces it. A ranking counts from the
  first bar that opens after it.
- A value is computed in float64 and stored as float32, with seven digits. One that float32 cannot hold, smaller than
  1.2e-38 or larger than 3.4e38 and not 0, is NaN: never 0, never infinite. Columns of a candle cannot be such: beyond
  1e-30 to 1e30 they are not believed, and a day file that holds one is left out with the reason.
- A bin begins and ends with a bar of which something is known. Nothing is shifted, filled or interpolated.
"""


def page() -> str:
    """Return the text of docs/fields.md."""
    names = ", ".join(f"`{frequency.name}`" for frequency in FREQUENCIES)
    return _TEXT.format(frequencies=names, table=as_markdown())


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201 - what the command is for
