"""Arguments that make no sense, refused by name before anything is computed with them."""

import inspect
import math
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from inspect import Parameter
from numbers import Integral, Real
from typing import Any

import pandas as pd

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
        close = get_close_matches(name, allowed, n=1)
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
    allowed = " and ".join(f"{sign} {bound:g}" for sign, bound in bounds.items() if bound is not None)
    inside = (
        isinstance(value, Real)
        and math.isfinite(value)
        and (over is None or value > over)
        and (least is None or value >= least)
        and (below is None or value < below)
    )
    if not inside:
        raise ValueError(f"{name} is {value!r}: it must be a finite number{f' {allowed}' if allowed else ''}")
    return float(value)


def whole(name: str, value: Any, *, least: int) -> int:
    """Return a whole number that is at least `least`; else ValueError."""
    if not isinstance(value, Integral) or value < least:
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
    try:
        found = utc(value)
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
        number(f"account[{name!r}]", amount)
    return dict(account)


def settled_of(settled: Any, columns: Collection[str]) -> Any:
    """Return collected rates as they are given; ValueError where a frame lacks one of the columns."""
    if isinstance(settled, pd.DataFrame) and not set(columns) <= set(settled.columns):
        raise ValueError(
            f"settled is a DataFrame with the columns {list(settled.columns)}: it must have {', '.join(columns)}, "
            f"as what perps.settlements returns"
        )
    return settled
