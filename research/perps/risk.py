"""Risk of a market that trades every day of the year."""

import math
import re

import numpy as np
import pandas as pd

DAYS_A_YEAR = 365
_MINUTES_A_DAY = 1440
_FREQ = re.compile(r"^([1-9]\d*)?(min|minute|day|d)$")

ENOUGH_DAYS = 90
"""Days below which a figure of a year says more about chance than about a strategy."""

OF_A_YEAR = ("annualized_return", "information_ratio", "information_ratio_error")
"""Measures that a sample has to be long enough for."""


def bars_per_year(freq: str) -> float:
    """Return how many bars of a frequency ("day", "60min", "5min") a year of 365 days has.

    Raises ValueError for a frequency that is neither minutes nor days.
    """
    match = _FREQ.match(freq.lower())
    if match is None:
        raise ValueError(f"frequency {freq!r}: expected minutes or days, such as '60min' or 'day'")
    count = int(match[1] or 1)
    bars_a_day = _MINUTES_A_DAY / count if match[2].startswith("min") else 1 / count
    return DAYS_A_YEAR * bars_a_day


def frequency_of(bars: pd.DatetimeIndex) -> str:
    """Return the frequency of a backtest's bars as Qlib spells it: the shortest distance between two."""
    minutes = int(np.diff(bars.to_numpy()).min() / np.timedelta64(1, "m")) if len(bars) > 1 else _MINUTES_A_DAY
    return "day" if minutes % _MINUTES_A_DAY == 0 else f"{minutes}min"


def risk(returns: pd.Series, freq: str, *, enough_days: float = ENOUGH_DAYS) -> pd.DataFrame:
    """Measure a series of returns, one a bar: compounded, annualised at 365 days.

    The frame has the shape of Qlib's `risk_analysis`, a column "risk" with the rows

    - mean, std: of the returns of a bar (std with ddof 1)
    - mean_error: the standard error of the mean, std / sqrt(bars), where returns are independent
    - total_return: product of (1 + return), less 1
    - annualized_return: (1 + total_return) ^ (bars a year / bars) - 1
    - annualized_volatility: std x sqrt(bars a year)
    - information_ratio: mean / std x sqrt(bars a year); the Sharpe ratio where returns are no excess over a benchmark
    - information_ratio_error: its standard error, sqrt((1 + (mean / std)^2 / 2) / bars x bars a year), where returns
      are independent (Lo, The Statistics of Sharpe Ratios, 2002)
    - max_drawdown: the lowest of equity / highest equity so far - 1; the capital at the start counts as equity
    - bars: how many returns there are

    Of a sample of fewer than `enough_days` days, annualized_return, information_ratio and its error are NaN: the ratio
    of 13 hours can be -47 and mean nothing (`too_short` says so in a sentence). 0 gives them for any sample.

    An account that lost everything stays at 0: what follows a return of -100 % or less is not compounded any more.
    Bars without a return (NaN) are left out. Raises ValueError where none is left.
    """
    values = returns.dropna().to_numpy(dtype="float64")
    if len(values) == 0:
        raise ValueError("no returns to measure")
    a_year = bars_per_year(freq)
    growth = np.cumprod(np.maximum(1 + values, 0.0))
    std = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    peak = np.maximum.accumulate(np.maximum(growth, 1.0))
    measures = {
        "mean": values.mean(),
        "mean_error": std / math.sqrt(len(values)),
        "std": std,
        "total_return": growth[-1] - 1,
        "annualized_return": growth[-1] ** (a_year / len(values)) - 1,
        "annualized_volatility": std * math.sqrt(a_year),
        "information_ratio": values.mean() / std * math.sqrt(a_year) if std else math.nan,
        "information_ratio_error": _ratio_error(values.mean() / std, len(values), a_year) if std else math.nan,
        "max_drawdown": (growth / peak - 1).min(),
        "bars": len(values),
    }
    if len(values) / a_year * DAYS_A_YEAR < enough_days:
        measures |= dict.fromkeys(OF_A_YEAR, math.nan)
    return pd.Series(measures, dtype="float64").to_frame("risk")


def _ratio_error(ratio: float, bars: int, a_year: float) -> float:
    return math.sqrt((1 + ratio**2 / 2) / bars * a_year)


def too_short(returns: pd.Series, freq: str) -> str | None:
    """Return in a sentence that a sample is too short for figures of a year; None where it is not."""
    bars = int(returns.notna().sum())
    days = bars / bars_per_year(freq) * DAYS_A_YEAR
    if days >= ENOUGH_DAYS:
        return None
    return f"{bars:,} bars are {days:.1f} days: too short a sample for figures of a year, which need {ENOUGH_DAYS}"
