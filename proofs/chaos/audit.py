"""The audit by hand in a chaos run, as an operator would do it: of the minutes that the exchange changed later.

Only asking again shows such a change. At real speed the writer asks all the time. In simulated time, many times as
fast, its few pages an hour cover too little. So the command is run for the minutes that the fault log names, and it
may find nothing but these.
"""

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from proofs.judges.stored import Difference
from proofs.units import MINUTE_MS

PAGE_MS = 288 * MINUTE_MS
"""What the audit asks for at once: a fifth of a day."""
SURE_MS = 12 * MINUTE_MS
"""Age at which a minute is audited: the audit's own ten minutes, and what its clock may be off ..."""
_ON_ITS_WAY_SECONDS = 62.0
"""... and our time that a row may be under way."""
_TRIES = 5
_BETWEEN_SECONDS = 10.0
"""Between two tries: on a busy machine the command knows the pace of time but roughly, and the minutes get older."""
_ANSWER_SECONDS = 180.0


class Window(NamedTuple):
    """What one command audits: all of [begin, end) lies on one page of each symbol."""

    begin_ms: int
    end_ms: int
    symbols: tuple[str, ...]


@dataclass
class Audited:
    """What the audits brought to light."""

    counts: Counter[str] = field(default_factory=Counter)
    unexpected: list[Difference] = field(default_factory=list)
    """What differed although the exchange had not changed it: only the audit shows it."""
    troubles: list[str] = field(default_factory=list)
    """Windows of which nothing was found out, and why."""


def corrected_minutes(log: Iterable[Mapping[str, Any]]) -> set[tuple[str, int]]:
    """Return the minutes (symbol, Unix ms) that the exchange changed after they were closed, by the fault log. Pure."""
    return {
        (str(entry["instId"]).removesuffix("-SWAP").replace("-", "_"), int(entry["open_ms"]))
        for entry in log
        if entry["kind"] == "corrected"
    }


def windows_of(minutes: Iterable[tuple[str, int]]) -> list[Window]:
    """Group minutes so that there are few pages, and few commands. The earliest come first. Pure."""
    pages: dict[int, list[tuple[str, int]]] = {}
    for symbol, opened in minutes:
        pages.setdefault(opened // PAGE_MS, []).append((symbol, opened))
    return [
        Window(
            min(opened for _, opened in page),
            max(opened for _, opened in page) + MINUTE_MS,
            tuple(sorted({symbol for symbol, _ in page})),
        )
        for _, page in sorted(pages.items())
    ]


def audit(
    windows: Iterable[Window],
    *,
    known: set[tuple[str, int]],
    command: Callable[[Window], "Answer"],
    now_ms: Callable[[], int],
    speed: float,
    pause: Callable[[float], None] = time.sleep,
) -> Audited:
    """Audit and mend each window as soon as it is old enough; `known` may differ, anything else is unexpected."""
    found = Audited()
    for window in windows:
        sure_ms = window.end_ms + SURE_MS + int(_ON_ITS_WAY_SECONDS * 1000 * speed)
        while (left_ms := sure_ms - now_ms()) > 0:
            time.sleep(left_ms / 1000 / speed)
        answer = command(window)
        for _ in range(_TRIES - 1):
            if answer.troubles:
                pause(_BETWEEN_SECONDS)
                answer = command(window)
        found.counts.update(windows=1, **answer.counts)
        found.unexpected += [
            Difference(_ms(one["at"]), one["symbol"], f"audit: {one['kind']}", str(one["fields"]), "")
            for one in answer.differences
            if one["kind"] != "changed" or (one["symbol"], _ms(one["at"])) not in known
        ]
        found.troubles += [f"{','.join(window.symbols)} {window.begin_ms}: {trouble}" for trouble in answer.troubles]
    return found


class Answer(NamedTuple):
    """What one command found."""

    counts: Mapping[str, int]
    differences: list[dict[str, Any]]
    troubles: list[str]


def by_hand(window: Window, *, folder: Path, environment: Mapping[str, str]) -> Answer:
    """Run the command on a window, with --repair; `folder` is where its output and the services' paths begin."""
    output = folder / "audit.json"
    output.unlink(missing_ok=True)
    begin, end = (datetime.fromtimestamp(at / 1000, UTC).isoformat() for at in (window.begin_ms, window.end_ms))
    span = ["--begin", begin, "--end", end, "--symbols", ",".join(window.symbols)]
    ended = subprocess.run(  # noqa: S603 - our own arguments
        [sys.executable, "-m", "services.writer.audit", *span, "--repair", "--json", str(output)],
        cwd=folder,
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=_ANSWER_SECONDS,
        check=False,
    )
    if not output.exists():
        return Answer({}, [], [f"exit code {ended.returncode}: {(ended.stdout + ended.stderr)[-500:]}"])
    return read_report(json.loads(output.read_text()), window.end_ms)


def read_report(report: Mapping[str, Any], end_ms: int) -> Answer:
    """Read what the command wrote. Pure.

    It leaves out what is too new for its clock, which on a busy machine knows the pace of time but roughly: a window
    of which the end is left out has to be audited again.
    """
    counts = {name: int(report[name]) for name in ("pages", "minutes", "repaired")}
    counts |= {kind: int(count) for kind, count in report["mismatches"].items()}
    troubles = sorted(report["troubles"])
    if _ms(report["until"]) < end_ms:
        troubles.append(f"audited only until {report['until']}")
    return Answer(counts, list(report["differences"]), troubles)


def _ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)
