"""Arguments that make no sense, refused by name before anything is computed with them."""

import inspect
import math
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from inspect import Parameter
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import pandas as pd
from qlib.strategy.base import BaseStrategy

from perps.raw import utc

_BY_NAME = {Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY}


def names_of(kind: type) -> frozenset[str]:
    """Return the arguments that a class takes by name, with those of its bases as far as constructors pass them on."""
    names: set[str] = set()
    for base in (base for base in kind.__mro__ if "__init__" in vars(base)):
        _, *parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        names |= {parameter.name for parameter in parameters if parameter.kind in _BY_NAME}
        if all(parameter.kind != Parameter.VAR_KEYWORD for parameter in parameters):
            break
    return frozenset(names)


def check_names(owner: str, given: Collection[str], allowed: Collection[str], exchange: Collection[str] = ()) -> None:
    """Raise TypeError for an argument that is not allowed: some of Qlib's constructors ignore what they do not know.

    owner: whose arguments these are, for the message. exchange: arguments of the exchange, which is where those belong.
    """
    for name in given:
        if name in allowed:
            continue
        close = get_close_matches(str(name), allowed, n=1)
        if name in exchange:
            hint = f"it is a setting of the exchange: exchange={{{name!r}: ...}}"
        else:
            hint = f"did you mean {close[0]}?" if close else f"it takes {', '.join(sorted(allowed))}"
        raise TypeError(f"{owner} takes no argument {name!r}: {hint}")


def number(
    name: str, value: Any, *, over: float | None = None, least: float | None = None, below: float | None = None
) -> float:
    """Return a finite number that is > `over`, >= `least` and < `below`, where these are given; else ValueError."""
    bounds = {">": over, ">=": least, "<": below}
    figure = float(value) if isinstance(value, Real) else math.nan
    allowed = " and ".join(f"{sign} {bound:g}" for sign, bound in bounds.items() if bound is not None)
    inside = (
        math.isfinite(figure)
        and (over is None or figure > over)
        and (least is None or figure >= least)
        and (below is None or figure < below)
    )
    if not inside:
        raise ValueError(f"{name} is {value!r}: it must be a finite number{f' {allowed}' if allowed else ''}")
    return figure


def whole(name: str, value: Any, *, least: int) -> int:
    """Return a whole number that is at least `least`; else ValueError."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} is {value!r}: it must be a whole number >= {least}")
    return int(value)


def one_of(name: str, value: Any, allowed: Collection[str]) -> str:
    """Return a word that is allowed; else ValueError."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} is {value!r}: it must be one of {', '.join(allowed)}")
    return value


def length(name: str, value: Any) -> pd.Timedelta:
    """Return a length of time that is not negative; else ValueError."""
    try:
        found = pd.Timedelta(value)
    except (TypeError, ValueError):
        found = pd.NaT
    if found is pd.NaT or found < pd.Timedelta(0):
        raise ValueError(f"{name} is {value!r}: it must be a length of time >= 0, such as '1D' or '12h'")
    return found


def instant(name: str, value: Any) -> pd.Timestamp:
    """Return an instant as UTC without a zone, as Qlib's are; ValueError where it is none."""
    try:  # pandas takes a number for nanoseconds since 1970: 20260228 is no date
        found = pd.NaT if isinstance(value, Real) else utc(value)
    except (TypeError, ValueError):
        found = pd.NaT
    if found is pd.NaT:
        raise ValueError(f"{name} is {value!r}: it must be an instant, such as '2025-04-05' or '2025-04-05 08:00'")
    return found


def account_of(account: Any) -> float | dict[str, Any]:
    """Return what a backtest begins with: money, or {"cash": money, symbol: amount or {"amount": …, …}}.

    Raises ValueError where money or an amount is no finite number, or money alone is not above 0.
    """
    if not isinstance(account, Mapping):
        return number("account", account, over=0)
    if "cash" not in account:
        raise ValueError(
            f'account is {dict(account)!r}: it must have "cash", such as {{"cash": 1000.0, symbol: amount}}'
        )
    for name, held in account.items():
        amount = held.get("amount") if isinstance(held, Mapping) else held
        # What is held may be worth more than the cash that was paid for it; alone, cash is all there is.
        number(f"account[{name!r}]", amount, over=0 if len(account) == 1 else None)
    return dict(account)


_SIGNAL = (
    "it must be a Series or frame of numbers indexed by datetime (UTC, without a zone) and instrument, a model with "
    "its dataset, or Qlib's config of a signal"
)


def signal_of(signal: Any) -> Any:
    """Return a signal as it is given; ValueError where it is none, or has nothing that symbols can be ranked by."""
    if isinstance(signal, pd.Series | pd.DataFrame):
        wrong = _wrong_with(signal)
        if wrong:
            raise ValueError(f"signal is a {type(signal).__name__} {wrong}: {_SIGNAL}")
        return signal
    pair = isinstance(signal, list | tuple) and len(signal) == 2 and hasattr(signal[0], "predict")  # noqa: PLR2004
    place = isinstance(signal, str) and ("." in signal or ":" in signal)  # of a class, or of a pickle
    if not (pair or place or hasattr(signal, "get_signal") or (isinstance(signal, dict) and "class" in signal)):
        raise ValueError(f"signal is {signal!r}: {_SIGNAL}")
    return signal


def _wrong_with(signal: pd.Series | pd.DataFrame) -> str | None:
    """Return what is wrong with the rows of a signal; None where nothing is."""
    if signal.empty:
        return "without rows"
    kinds = signal.dtypes if isinstance(signal, pd.DataFrame) else [signal.dtype]
    strange = [kind for kind in kinds if kind.kind not in "iuf"]
    if strange:
        return f"of {strange[0]}"
    times = [level.dtype for level in getattr(signal.index, "levels", [])]
    zoned = [kind for kind in times if isinstance(kind, pd.DatetimeTZDtype)]
    if zoned:
        return f"whose datetime has the zone {zoned[0].tz}"
    if set(signal.index.names) != {"datetime", "instrument"} or not any(kind.kind == "M" for kind in times):
        return f"indexed by {list(signal.index.names)}"
    twice = signal.index[signal.index.duplicated()]
    return f"with two rows of {twice[0]}" if len(twice) else None


def symbols_of(name: str, symbols: Any) -> list[str]:
    """Return a symbol, or a list of symbols, as a list; ValueError where it is neither, or the list is empty."""
    listed = [symbols] if isinstance(symbols, str) else symbols
    if not isinstance(listed, list | tuple) or not listed or not all(isinstance(symbol, str) for symbol in listed):
        raise ValueError(f"{name} is {symbols!r}: it must be a symbol, a list of symbols, a Series of returns or None")
    return list(listed)


def returns_of(benchmark: pd.Series) -> pd.Series:
    """Return a benchmark's returns as they are given; ValueError where they are no numbers by time."""
    zone = getattr(benchmark.index, "tz", None)
    if benchmark.empty or benchmark.dtype.kind not in "iuf" or benchmark.index.dtype.kind != "M" or zone is not None:
        raise ValueError(
            f"benchmark is a Series of {len(benchmark)} {benchmark.dtype} by {benchmark.index.dtype}: it must be of "
            "numbers by datetime (UTC, without a zone)"
        )
    return benchmark


def strategy_of(strategy: Any) -> Any:
    """Return a strategy, or Qlib's config of one, as it is given; ValueError where it is neither."""
    config = isinstance(strategy, str | Path) or (isinstance(strategy, dict) and _names_a_class(strategy))
    if not (config or isinstance(strategy, BaseStrategy)):
        raise ValueError(
            f"strategy is {strategy!r}: it must be an instance of a strategy, such as perps.FundingCarry(topk=5), or "
            "Qlib's config of one, {'class': ..., 'module_path': ..., 'kwargs': ...}"
        )
    return strategy


def _names_a_class(config: Mapping[str, Any]) -> bool:
    kind = config.get("class", config.get("func"))
    return "module_path" in config or "." in kind if isinstance(kind, str) else callable(kind)


def exchange_of(exchange: Any) -> dict[str, Any]:
    """Return settings of an exchange, none where they are None; ValueError where they are no mapping."""
    if exchange is not None and not isinstance(exchange, Mapping):
        raise ValueError(f'exchange is {exchange!r}: it must be a dict of settings, such as {{"slippage": 0.0002}}')
    return dict(exchange or {})


def settled_of(settled: Any, columns: Collection[str]) -> Any:
    """Return collected rates as they are given; ValueError where they are neither a folder nor a frame of them."""
    if settled is not None and not isinstance(settled, str | Path | pd.DataFrame):
        raise ValueError(
            f"settled is {settled!r}: it must be the collector's DATA_DIR, or what perps.settlements returns"
        )
    if isinstance(settled, pd.DataFrame) and not set(columns) <= set(settled.columns):
        raise ValueError(
            f"settled is a DataFrame with the columns {list(settled.columns)}: it must have {', '.join(columns)}, "
            f"as what perps.settlements returns"
        )
    return settled
