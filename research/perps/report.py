"""A backtest as a picture: what was earned, how deep it fell, and whether prices or funding earned it."""

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.dates as mdates
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.typing import RcKeyType
from qlib.utils.exceptions import LoadObjectError
from qlib.utils.time import Freq

from perps.pnl import begin_of
from perps.risk import frequency_of, risk, too_short

# Artifacts are small files on this machine; mlflow would show a progress bar for each.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

ARTIFACTS, LEDGER, REPORT = "portfolio_analysis", "ledger.pkl", "report.png"
"""Where a `PerpAnaRecord` keeps what is drawn here, and the picture."""

INK, MUTED, GRID, PAPER = "#1c2430", "#6b7686", "#e6e9ee", "#ffffff"
PRICE, FUNDING, COSTS, FALL, BENCH = "#2f6fde", "#e8912d", "#c2485b", "#d9534f", "#9aa5b4"
TIMES = "\N{MULTIPLICATION SIGN}"
NONE = "\N{EN DASH}"

FORCED = {"liquidations": "liquidations", "delistings": "delistings", "unfollowed": "closed as no longer followed"}
"""Columns of a ledger that count positions closed without a decision, and what the report calls them."""
_STYLE: dict[RcKeyType, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.facecolor": PAPER,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.xmargin": 0.01,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "figure.facecolor": PAPER,
    "legend.frameon": False,
}
_HEIGHTS = {"tiles": 0.62, "equity": 2.5, "drawdown": 1.0, "pnl": 2.2, "turnover": 1.0, "ic": 1.3}
_LABEL_POINTS = 11
"""Distance of two labels at the ends of lines, in points: a little more than their height."""

_DAY = timedelta(days=1)

_SMALL = 0.01
"""Shares below this one are written with one more digit."""

_SMOOTH_DAYS = 20
"""Days over which the mean IC is drawn: about what a person can see as a trend."""


def report(
    source: Any,
    *,
    benchmark: pd.Series | None = None,
    ic: pd.Series | None = None,
    title: str = "Backtest",
    path: str | Path | None = None,
    dpi: int = 130,
) -> Figure:
    """Draw a backtest: equity, drawdown, P&L of prices, funding and costs apart, turnover, IC.

    source: a recorder in which a `PerpAnaRecord` has run (it brings benchmark and IC along), what `perps.backtest`
    returns, or a ledger (`perps.ledger`). benchmark: returns of a bar. ic: one value a bar, from `SigAnaRecord` or
    Qlib's `calc_ic`. path: where to write it as PNG, too. Raises `ValueError` where the ledger has no bar.
    """
    frame, found_benchmark, found_ic = _frames(source)
    if frame.empty:
        raise ValueError("there is no bar to report on")
    benchmark = found_benchmark if benchmark is None else benchmark
    ic = found_ic if ic is None else ic
    with plt.rc_context(_STYLE):
        figure = _draw(Earned(frame, benchmark, ic), title)
        if path is not None:
            figure.savefig(path, dpi=dpi)
    plt.close(figure)  # the caller shows it; otherwise a notebook would show it twice
    return figure


def turnover_by_day(ledger: pd.DataFrame) -> pd.Series:
    """Return the value traded in each UTC day, as a multiple of the equity that each bar began with."""
    before = ledger["equity"].shift(1, fill_value=begin_of(ledger))
    by_day: pd.Series = (ledger["turnover"] / before).resample("D").sum()
    return by_day


class Earned:
    """A ledger as shares of what the account began with; what the panels and the headline are drawn from."""

    def __init__(self, ledger: pd.DataFrame, benchmark: pd.Series | None, ic: pd.Series | None) -> None:
        """Take apart what was earned. ledger: as `perps.ledger` returns it."""
        self.freq = frequency_of(pd.DatetimeIndex(ledger.index))
        costs = ledger["fee"] + ledger["slippage"]
        begin = begin_of(ledger)
        before = ledger["equity"].shift(1, fill_value=begin)
        self.begin = begin
        self.step = pd.Timedelta(self.freq if self.freq[0].isdigit() else f"1{self.freq}")
        self.returns = ledger["equity"] / before - 1
        self.equity = ledger["equity"] / begin - 1
        self.drawdown = ledger["equity"] / ledger["equity"].cummax().clip(lower=begin) - 1
        self.price = ledger["price"].cumsum() / begin
        self.funding = ledger["funding"].cumsum() / begin
        self.costs = -costs.cumsum() / begin
        self.turnover = turnover_by_day(ledger)
        self.turnover_a_day = float((ledger["turnover"] / before).sum() / (len(ledger) * self.step / _DAY))
        forced = ledger.reindex(columns=list(FORCED), fill_value=0).sum()
        self.forced = {words: int(forced[name]) for name, words in FORCED.items()}
        self.note = too_short(self.returns, self.freq)
        self.benchmark = None
        if benchmark is not None and benchmark.any():  # nothing but zeros is what stands for no benchmark
            self.benchmark = (1 + benchmark.reindex(ledger.index).fillna(0.0)).cumprod() - 1
        known = pd.Series(dtype="float64") if ic is None else ic.dropna()
        self.mean_ic = float(known.mean()) if len(known) else None
        self.ic = known.resample("D").mean().dropna() if len(known) else known


def _frames(source: Any) -> tuple[pd.DataFrame, pd.Series | None, pd.Series | None]:
    """Return ledger, benchmark and IC of whatever has them."""
    if isinstance(source, pd.DataFrame):
        return source, None, None
    if not _is_recorder(source):
        return source.ledger, source.report["bench"], None
    ledger = source.load_object(f"{ARTIFACTS}/{LEDGER}")
    count, unit = Freq.parse(frequency_of(pd.DatetimeIndex(ledger.index)))
    bars = source.load_object(f"{ARTIFACTS}/report_normal_{count}{unit}.pkl")
    return ledger, bars["bench"], ic_of(source)


def _is_recorder(source: Any) -> bool:
    return hasattr(source, "load_object")


def ic_of(recorder: Any) -> pd.Series | None:
    """Return the IC of each bar that a SigAnaRecord has stored, or None where none has run."""
    try:
        stored: pd.Series = recorder.load_object("sig_analysis/ic.pkl")
    except LoadObjectError:
        return None
    return stored


# --- Panels


def _draw(earned: Earned, title: str) -> Figure:
    panels: dict[str, Callable[[Axes, Earned], None]] = {
        "equity": _equity,
        "drawdown": _drawdown,
        "pnl": _pnl,
        "turnover": _turnover,
    }
    if len(earned.ic):
        panels["ic"] = _ic
    heights = [_HEIGHTS["tiles"], *(_HEIGHTS[name] for name in panels)]
    figure = plt.figure(figsize=(11, 1.35 * sum(heights) + 1.2))
    top = 1 - (0.95 if earned.note is None else 1.2) / figure.get_figheight()
    figure.subplots_adjust(left=0.075, right=0.93, top=top, bottom=0.045, hspace=0.42)
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    _headline(figure, figure.add_subplot(grid[0]), earned, title)
    shared: Axes | None = None
    for row, panel in enumerate(panels.values(), start=1):
        axes = figure.add_subplot(grid[row], sharex=shared)
        shared = shared or axes
        panel(axes, earned)
        axes.tick_params(labelbottom=row == len(panels))
    locator = mdates.AutoDateLocator(minticks=4, maxticks=9)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))
    return figure


def _headline(figure: Figure, axes: Axes, earned: Earned, title: str) -> None:
    first, last = earned.equity.index[0], earned.equity.index[-1]
    height = figure.get_figheight()
    form = "%d %b %Y" if earned.freq == "day" else "%d %b %Y %H:%M"
    figure.text(0.075, 1 - 0.38 / height, title, fontsize=16, fontweight="bold", va="center")
    bars = "days" if earned.freq == "day" else f"bars of {earned.freq}"
    facts = [f"{first:{form}} to {last:{form}} UTC", f"{len(earned.equity):,} {bars}", f"start {earned.begin:,.0f}"]
    facts += [f"{words}: {count}" for words, count in earned.forced.items() if count]
    figure.text(0.075, 1 - 0.68 / height, "   ·   ".join(facts), color=MUTED, va="center")
    if earned.note is not None:
        figure.text(0.075, 1 - 0.93 / height, earned.note, color=FALL, va="center")
    axes.axis("off")
    tiles = _tiles(earned)
    for number, (label, value, colour) in enumerate(tiles):
        left = number / len(tiles)
        axes.text(left, 0.62, value, fontsize=14, fontweight="bold", color=colour, transform=axes.transAxes)
        axes.text(left, 0.12, label, fontsize=8, color=MUTED, transform=axes.transAxes)


def _tiles(earned: Earned) -> list[tuple[str, str, str]]:
    """Return label, value and colour of each figure of the headline."""
    measures = risk(earned.returns, earned.freq)["risk"]
    tiles = [
        ("total return", _percent(measures["total_return"]), INK),
        (*_with_error("bp a bar", 1e4 * measures["mean"], 1e4 * measures["mean_error"], 1), INK),
        ("volatility p.a.", f"{measures['annualized_volatility']:.1%}", INK),
        (*_with_error("Sharpe", measures["information_ratio"], measures["information_ratio_error"], 2), INK),
        ("max drawdown", _percent(measures["max_drawdown"]), FALL),
        ("from prices", _percent(earned.price.iloc[-1]), PRICE),
        ("from funding", _percent(earned.funding.iloc[-1]), FUNDING),
        ("fees, slippage", _percent(earned.costs.iloc[-1]), COSTS),
        ("turnover a day", f"{earned.turnover_a_day:.2f}{TIMES}", INK),
    ]
    if earned.mean_ic is not None:
        tiles.append(("mean IC", _number(earned.mean_ic, 3), INK))
    return tiles


def _with_error(name: str, value: float, error: float, digits: int) -> tuple[str, str]:
    """Return a label with the standard error, and the value; a dash where the sample is too short for it."""
    return (
        (name, NONE) if np.isnan(value) or np.isnan(error) else (f"{name} ± {error:.{digits}f}", _number(value, digits))
    )


def _line(series: pd.Series, earned: Earned) -> pd.Series:
    """Return a series as it is drawn: what a bar has at its end stands there, after 0 at the beginning."""
    first = pd.Series([0.0], index=series.index[:1])
    return pd.concat([first, series.set_axis(series.index + earned.step)])


def _equity(axes: Axes, earned: Earned) -> None:
    _heading(axes, "Equity", "net of all costs, against the start")
    lines = [(_line(earned.equity, earned), "equity", INK)]
    if earned.benchmark is not None:
        lines.append((_line(earned.benchmark, earned), "benchmark", BENCH))
    for (series, _, colour), width in zip(lines, (1.8, 1.2), strict=False):
        axes.plot(series, color=colour, linewidth=width, zorder=2 + width)
    axes.axhline(0, color=MUTED, linewidth=0.8)
    _label_ends(axes, lines)
    _percent_axis(axes)


def _drawdown(axes: Axes, earned: Earned) -> None:
    _heading(axes, "Drawdown", "below the highest equity so far")
    line = _line(earned.drawdown, earned)
    axes.fill_between(line.index, line, 0, color=FALL, alpha=0.28, linewidth=0)
    axes.plot(line, color=FALL, linewidth=0.9)
    axes.set_ylim(top=0)
    _percent_axis(axes, most=3)


def _pnl(axes: Axes, earned: Earned) -> None:
    _heading(
        axes,
        "Where it came from",
        "sums, as a share of the start: prices, funding, costs; together they are the equity",
    )
    parts = ((earned.price, "prices", PRICE), (earned.funding, "funding", FUNDING), (earned.costs, "costs", COSTS))
    lines = [(_line(series, earned), name, colour) for series, name, colour in parts]
    for series, _, colour in lines:
        axes.plot(series, color=colour, linewidth=1.6)
        axes.fill_between(series.index, series, 0, color=colour, alpha=0.08, linewidth=0)
    axes.axhline(0, color=MUTED, linewidth=0.8)
    _label_ends(axes, lines)
    _percent_axis(axes)


def _turnover(axes: Axes, earned: Earned) -> None:
    _heading(axes, "Turnover", "traded in a day, as a multiple of the equity")
    begins, widths = days_drawn(earned.turnover.index, earned.returns.index[0], earned.returns.index[-1] + earned.step)
    axes.bar(begins, earned.turnover, width=widths, color=MUTED, alpha=0.65, linewidth=0, align="edge")
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{TIMES}"))


def days_drawn(
    days: pd.DatetimeIndex, first: pd.Timestamp, end: pd.Timestamp
) -> tuple[list[pd.Timestamp], list[pd.Timedelta]]:
    """Return where the bar of each day begins and how wide it is: no wider than the part of the day that there is."""
    begins = [max(day, first) for day in days]
    ends = [min(day + _DAY, end) for day in days]
    return begins, [0.85 * (end - begin) for begin, end in zip(begins, ends, strict=True)]


def _ic(axes: Axes, earned: Earned) -> None:
    ic = earned.ic
    days = min(_SMOOTH_DAYS, max(2, len(ic) // 3))
    _heading(axes, "IC", f"correlation of prediction and what came, mean of a day; line: mean of {days} days")
    begins, widths = days_drawn(ic.index, earned.returns.index[0], earned.returns.index[-1] + earned.step)
    axes.bar(begins, ic, width=widths, color=np.where(ic >= 0, PRICE, FALL), alpha=0.45, linewidth=0, align="edge")
    axes.plot(ic.rolling(days, min_periods=1).mean(), color=INK, linewidth=1.4)
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _minus(f"{value:g}")))


def _heading(axes: Axes, name: str, meaning: str) -> None:
    heading = axes.set_title(name, loc="left", fontsize=11, fontweight="bold", pad=7)
    axes.annotate(
        meaning,
        xy=(1, 0),
        xycoords=heading,
        xytext=(9, 2.6),
        textcoords="offset points",
        color=MUTED,
        fontsize=8.5,
    )


def _label_ends(axes: Axes, lines: Sequence[tuple[pd.Series, str, str]]) -> None:
    """Write the lines' names at their ends, in place of a legend; none over another."""
    low, high = axes.get_ylim()
    height = axes.get_position().height * axes.figure.figure.get_figheight() * 72  # points
    apart = _LABEL_POINTS * (high - low) / height
    places = np.array([series.iloc[-1] for series, _, _ in lines])
    order = places.argsort()
    for below, above in pairwise(order):
        places[above] = max(places[above], places[below] + apart)
    for (series, name, colour), place in zip(lines, places, strict=True):
        axes.annotate(
            name,
            xy=(series.index[-1], place),
            xytext=(5, 0),
            textcoords="offset points",
            color=colour,
            fontsize=8.5,
            va="center",
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.0},
            annotation_clip=False,
        )


def _percent_axis(axes: Axes, most: int = 5) -> None:
    axes.yaxis.set_major_locator(MaxNLocator(most))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _minus(f"{round(100 * value, 4):g}%")))


def _percent(value: float) -> str:
    digits = 1 if abs(value) >= _SMALL else 2
    return _minus(f"{round(100 * value, digits) + 0.0:+.{digits}f}%")  # + 0.0: nothing is not less than nothing


def _number(value: float, digits: int) -> str:
    return _minus(f"{value:.{digits}f}")


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")
