"""Operators for Qlib's expressions whose answer does not depend on the unit of a price.

Qlib's Corr and Rsquare leave a window blank whose standard deviation is below 2e-5, whatever the values are: a coin at
0.0001 has no correlations, and neither has a usual funding rate. Here a window is blank where it does not vary beyond
what float32 can distinguish from a constant, compared with the size of its own values.
"""

from typing import Any

import numpy as np
import pandas as pd
from qlib.config import C
from qlib.data._libs.rolling import rolling_rsquare
from qlib.data.ops import Operators, PairRolling, Rolling

from perps.lives import WithinLife

RESOLUTION = 1e-6
"""Relative deviation below which a window counts as constant; float32 has steps of 6e-8."""


def is_constant(series: pd.Series, window: int) -> pd.Series:
    """Return where the last `window` values do not vary, relative to their own size."""
    rolling = series.astype("float64").rolling(window, min_periods=1)
    size = series.astype("float64").abs().rolling(window, min_periods=1).max()
    return ~(rolling.max() - rolling.min() > RESOLUTION * size)


class RelCorr(PairRolling):
    """Rolling correlation, blank where one of the two does not vary."""

    def __init__(self, feature_left: Any, feature_right: Any, N: int) -> None:  # noqa: N803 - as Qlib spells it
        super().__init__(feature_left, feature_right, N, "corr")

    def _load_internal(self, instrument: str, start_index: int, end_index: int, *args: Any) -> pd.Series:
        left, right = (
            feature.load(instrument, start_index, end_index, *args).astype("float64")
            for feature in (self.feature_left, self.feature_right)
        )
        found = _unit(left).rolling(self.N, min_periods=1).corr(_unit(right))
        blank = is_constant(left, self.N) | is_constant(right, self.N) | ~np.isfinite(found)
        return found.mask(blank)


class RelRsquare(Rolling):
    """How well a straight line explains the last values, blank where they do not vary."""

    def __init__(self, feature: Any, N: int) -> None:  # noqa: N803 - as Qlib spells it
        super().__init__(feature, N, "rsquare")

    def _load_internal(self, instrument: str, start_index: int, end_index: int, *args: Any) -> pd.Series:
        series = self.feature.load(instrument, start_index, end_index, *args).astype("float64")
        found = pd.Series(rolling_rsquare(_unit(series).to_numpy(), self.N), index=series.index)
        return found.mask(is_constant(series, self.N))


def _unit(series: pd.Series) -> pd.Series:
    """Bring values to about 1 by a power of two, which changes no digit."""
    size = series.abs().max()
    return series / 2.0 ** np.floor(np.log2(size)) if size > 0 else series


OPERATORS = [
    {"class": "RelCorr", "module_path": "perps.operators"},
    {"class": "RelRsquare", "module_path": "perps.operators"},
    {"class": "WithinLife", "module_path": "perps.lives"},
]


def bar_return() -> str:
    """Return the expression for the return of a bar, from the close before it; NaN in the first bar of a life."""
    register()
    return "WithinLife($close/Ref($close, 1)-1)"


def register() -> None:
    """Make the operators known to Qlib as it is initialised now, and to the processes that it starts."""
    known = list(C.get("custom_ops", []) or [])
    C["custom_ops"] = known + [one for one in OPERATORS if one not in known]
    Operators.register([RelCorr, RelRsquare, WithinLife])
