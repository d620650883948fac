"""The same question, asked of the real pyqlib, in Python 3.12.

`python -m proofs.judges.recorded_qlib QLIB_DIR RECORDING WANTED`.
WANTED is a JSON file: symbol → Unix ms up to which its minutes are wanted. Prints the counts as one JSON line.
"""

import json
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from proofs.judges.recorded import RecordedTally
from proofs.rig.conversion import RESEARCH_PYTHON, ROOT
from proofs.rig.recording import PRICES_AND_VOLUME, Recorded, read_recording, symbol_in_qlib


class UnreadableQlibError(Exception):
    """pyqlib could not read the data; the text is what it said."""


def judge_in_research(
    qlib_dir: Path, recording_dir: Path, wanted_until: Mapping[str, int], wanted_file: Path
) -> RecordedTally | None:
    """Ask the real pyqlib, in its own environment; None where that environment is not there.

    Raises `UnreadableQlibError`.
    """
    if not RESEARCH_PYTHON.exists():
        return None
    wanted_file.write_text(json.dumps(dict(wanted_until)))
    folders = [str(path.resolve()) for path in (qlib_dir, recording_dir, wanted_file)]
    command = [str(RESEARCH_PYTHON), "-m", "proofs.judges.recorded_qlib", *folders]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    lines = answer.stdout.strip().splitlines()
    if not lines:
        raise UnreadableQlibError(f"pyqlib could not read the data:\n{answer.stderr[-2000:]}")
    return RecordedTally(**json.loads(lines[-1]))


def main(qlib_dir: str, recording_dir: str, wanted_file: str) -> int:
    """Compare, print the counts, and return the exit code."""
    warnings.simplefilter("ignore")
    import qlib  # noqa: PLC0415 - takes seconds, and only this environment has it
    from qlib.config import REG_CN  # noqa: PLC0415
    from qlib.data import D  # noqa: PLC0415

    qlib.init(provider_uri=qlib_dir, region=REG_CN, kernels=1, logging_level=40)
    wanted: dict[str, int] = json.loads(Path(wanted_file).read_text())
    recording = read_recording(Path(recording_dir))
    total = RecordedTally()
    for symbol, until in wanted.items():
        frame = D.features([symbol], [f"${field}" for field in PRICES_AND_VOLUME], freq="1min")
        recorded = recording[symbol_in_qlib(symbol)]  # a recording knows no lower case
        total.add(_verify(frame, recorded, until))
    sys.stdout.write(json.dumps(total.counts()) + "\n")
    return 0 if total.clean else 1


def _verify(frame: Any, recorded: Recorded, until: int) -> RecordedTally:
    times = frame.index.get_level_values("datetime").to_numpy().astype("datetime64[ms]").astype(np.int64)
    found = RecordedTally(symbols=1, minutes=int(np.count_nonzero(recorded.opens < until)))
    _, there, recorded_there = np.intersect1d(times, recorded.opens, return_indices=True)
    lacking = np.setdiff1d(recorded.opens[recorded.opens < until], times)
    found.missing += len(lacking) * len(PRICES_AND_VOLUME)
    unknown = np.setdiff1d(np.arange(len(times)), there)
    for field in PRICES_AND_VOLUME:
        read = frame[f"${field}"].to_numpy(np.float32)
        truth = recorded.values[field].astype(np.float32)[recorded_there]
        present = ~np.isnan(read[there])
        equal = read[there] == truth
        found.values += int(np.count_nonzero(equal))
        found.wrong += int(np.count_nonzero(present & ~equal))
        found.missing += int(np.count_nonzero(~present & (times[there] < until)))
        found.invented += int(np.count_nonzero(~np.isnan(read[unknown])))
    return found


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
