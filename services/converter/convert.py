"""One conversion, in four stages: plan, load, compute, publish. I/O, in that order."""

from datetime import datetime
from pathlib import Path

import structlog

from services.converter.features.fields import BarRecipe
from services.converter.memory import Memory
from services.converter.qlib.store import ChangedBinsError
from services.converter.raw.predictions import prediction_file
from services.converter.report import ConversionReport
from services.converter.stages.load import load
from services.converter.stages.plan import plan
from services.converter.stages.pool import Progress, compute, symbol_conversion
from services.converter.stages.publish import publish
from services.converter.stages.run import Goal
from services.converter.versions.changing import changing
from shared.storage.files import remove_stale_temporaries
from shared.storage.qlib_layout import OWN

log = structlog.get_logger()


def convert(
    data_dir: Path,
    qlib_dir: Path,
    *,
    until: datetime | None,
    latest: datetime | None = None,
    recipe: BarRecipe = BarRecipe(),  # noqa: B008 - frozen
    rebuild: bool = False,
    history: bool = False,
    every_file: bool = False,
    processes: int = 1,
    progress: Progress = lambda *_: None,
    memory: Memory | None = None,
) -> ConversionReport:
    """Bring Qlib's folder up to `until` (None: to the newest minute on disk), touching only what changed.

    `latest` is the latest time that it can be now: raw days after it are left out and named in the report, and no new
    bar is after it. A calendar that goes beyond it already stays as it is, but for a rebuild: that makes a new version,
    which ends with the last bar before it.

    `history` lets the calendar begin with the first raw day on disk. One that begins earlier than before is a new
    version of the dataset: bins are copied to their new positions, and readers of the old version are not disturbed.
    Of the versions that this leaves behind one is kept. Where another one cannot be made, those days are left out.

    `rebuild` does so, too, and computes every raw day on disk again; days of which no raw file is left stay as they
    are. Another `recipe` than that of the last conversion computes every raw day again. `every_file`: see `scan`.
    `processes`: among how many the symbols are shared out at most, where there is enough to do.
    `memory`: of the same dataset, by a process that converts it again and again; without one everything is looked up.

    Raises:
        NothingToConvertError: no raw day lies before `until`.
        BusyError: another converter holds the dataset.
        VersionError: a rebuild needs a new version, and there is no room for one, or QLIB_DIR is a mount point.
        ValidationError: what would be published is not what it must be; no new bar is visible.
        ProcessDiedError: one of several processes was killed; no new bar is visible.
        CommitError: a part of it is visible; the text says which.
        OSError: something cannot be read or written; no new bar is visible.

    """
    goal = Goal(until, latest, recipe, rebuild=rebuild, history=history or rebuild, every_file=every_file)
    memory = memory or Memory(is_kept=False)
    try:
        try:
            return _converted(data_dir, qlib_dir, goal, memory=memory, processes=processes, progress=progress)
        except ChangedBinsError as error:
            log.warning("the dataset was changed meanwhile, looking at all of it", reason=str(error))
            memory.forget()
            return _converted(data_dir, qlib_dir, goal, memory=memory, processes=processes, progress=progress)
    except BaseException:
        memory.forget()
        raise


def _converted(
    data_dir: Path, qlib_dir: Path, goal: Goal, *, memory: Memory, processes: int, progress: Progress
) -> ConversionReport:
    is_next = not (goal.history or goal.every_file)
    with changing(qlib_dir) as versions:
        memory.trust(versions.head, goal.recipe.name(), goal.until if is_next else None)
        if memory.manifest is None:  # else the last run that wrote has come to its end
            remove_stale_temporaries(versions.head)
        run = plan(data_dir, versions, goal, memory)
        # The processes start while the rest is read.
        with (
            prediction_file(run.store.root / OWN) as predictions,
            symbol_conversion(run, most=processes, lock=versions.lock_descriptor) as convert_symbols,
        ):
            loaded = load(run, predictions)
            computed = compute(run, loaded.work, convert_symbols, progress)
        report = publish(run, loaded, computed, versions)
        memory.leave(versions.head, goal.recipe.name(), report.until)
    return report
