"""Processors for Qlib's data handlers that stay fast at thousands of bars."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from qlib.data.dataset.processor import Processor, get_group_columns

type Floats = npt.NDArray[np.float64]


class CSZScore(Processor):
    """Cross-sectional z-score: at every bar, (value - mean over the symbols) / standard deviation over them.

    The same as Qlib's CSZScoreNorm, which loops over the bars in Python (17 s for 8,760 bars of 20 symbols).
    One column is in work at a time, so that a frame of minutes needs no copies of its size.
    As with the original: NaN stays NaN and does not count, the deviation has ddof 1, a bar with one symbol gives NaN.
    """

    def __init__(self, fields_group: str | list[str] | None = None) -> None:
        self.fields_group = fields_group

    def __call__(self, df: pd.DataFrame) -> pd.DataFrame:
        """Normalise the columns of the groups in place, and return the frame."""
        groups: list[Any] = self.fields_group if isinstance(self.fields_group, list) else [self.fields_group]
        bars, _ = pd.factorize(df.index.get_level_values("datetime"))
        for group in groups:
            for place in np.flatnonzero(df.columns.isin(get_group_columns(df, group))):
                column = df.iloc[:, place]
                scores = z_scores(column.to_numpy(dtype="float64"), bars)
                df.isetitem(place, scores.astype(column.dtype))
        return df


def z_scores(values: Floats, bars: npt.NDArray[np.intp]) -> Floats:
    """Return the z-score of each value among the values of the same bar."""
    known = ~np.isnan(values)
    weights = np.where(known, values, 0.0)
    count = np.bincount(bars, weights=known).astype("float64")
    with np.errstate(invalid="ignore", divide="ignore"):
        centred = values - (np.bincount(bars, weights=weights) / count)[bars]
        squares = np.bincount(bars, weights=np.where(known, centred * centred, 0.0))
        deviation = np.sqrt(squares / np.where(count > 1, count - 1, np.nan))
        scores: Floats = centred / deviation[bars]
    return scores
