"""How do the raw files differ from what is in Qlib? Reads the ledgers that changed, and the definitions. I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from services.converter.features.fields import BarRecipe
from services.converter.manifest import ContractRecord, Holes, Manifest, record_of
from services.converter.memory import Memory
from services.converter.raw.days import LedgerDay, LedgerDays, read_ledgers
from services.converter.raw.definitions import DefinitionHistory, contract_of, definitions
from services.converter.raw.files import RawFiles
from services.converter.stages.dirty import Dirty, changed_days, dirty_days
from shared.datasets.candle import Candle
from shared.datasets.instrument import InstrumentDefinition
from shared.datasets.ledger import LedgerRow


@dataclass(frozen=True)
class RawChanges:
    """The raw files of a run, what had to be read of them to see what changed, and the days to compute again."""

    raw: RawFiles
    ledgers: LedgerDays
    """Of the days whose ledger changed, where it decides anything."""
    definitions: DefinitionHistory
    holes: Holes
    contracts: Mapping[str, ContractRecord]
    dirty: Dirty


def changes_since(
    manifest: Manifest,
    raw: RawFiles,
    end: datetime,
    recipe: BarRecipe,
    *,
    root: Path,
    memory: Memory | None = None,
) -> RawChanges:
    """Return what has changed on disk, as far as it concerns bars before `end`.

    root: the provider folder, which remembers the definitions that were read. memory: of the process that converts;
    without it nothing is remembered anywhere.
    """
    ledgers = _changed_ledgers(raw, manifest, recipe)
    history = _definitions(root, raw, memory)
    holes = _holes(raw, ledgers)
    contracts = {symbol: record_of(contract_of(given)) for symbol, given in history.of.items()}
    dirty = dirty_days(raw, manifest, end, holes, contracts, looks_back=recipe.stock_fields)
    return RawChanges(raw, ledgers, history, holes, contracts, dirty)


def _definitions(root: Path, raw: RawFiles, memory: Memory | None) -> DefinitionHistory:
    if memory is None:
        return definitions(root, raw, keep=False)
    history = memory.made("definitions", raw.version_of(InstrumentDefinition), partial(definitions, root, raw))
    if history.unreadable:
        memory.drop("definitions")
    return history


def _changed_ledgers(raw: RawFiles, manifest: Manifest, recipe: BarRecipe) -> LedgerDays:
    if recipe.partial_bars == "keep":
        return LedgerDays({}, {})
    return read_ledgers(raw.rows, raw.partitions(LedgerRow, changed_days(raw, LedgerRow, manifest)))


def _holes(raw: RawFiles, ledgers: LedgerDays) -> Holes:
    """Return the minutes without a candle at the exchange, for the candle files of the days whose ledger changed."""
    candles = raw.of(Candle)
    return {
        day: {symbol: records.get(symbol, LedgerDay()).without for symbol in candles[day].versions}
        for day, records in ledgers.of.items()
        if day in candles
    }
