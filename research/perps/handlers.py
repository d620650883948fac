"""FundingAlpha158: what a model sees. Qlib's Alpha158, and what only a perpetual has: funding.

Alpha158 looks back over 5 to 60 bars. Funding has a pace of its own, so its windows are days, whatever the frequency:
`FPAID7D` is the funding of the last seven days at `day`, `60min` and `1min` alike. A value that was not recorded (no
prediction in fetched history, no ranking yet) is NaN and stays NaN, which LightGBM takes as it is.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from qlib.contrib.data.handler import Alpha158

from perps.arguments import check_names, instant, names_of
from perps.bars import bars_per_day
from perps.dataset import check_trainable
from perps.lives import WithinLife
from perps.operators import register

FUNDING_DAYS = (1, 3, 7, 14, 30)
"""Days that the funding features look back on."""

_HOURS_PER_DAY = 24
_BENCH_HOURS = 8
"""Rates are compared per eight hours, the interval that most instruments have."""

Config = tuple[list[str], list[str]]
"""Expressions, and the names of the columns."""

LEARN_PROCESSORS: tuple[Mapping[str, Any], ...] = (
    {"class": "CSZScore", "module_path": "perps.processors", "kwargs": {"fields_group": "label"}},
    {"class": "DropnaLabel"},
)
"""Learn who does better than the others at that time. Qlib's CSZScoreNorm would be a loop over all bars. What has no
label is dropped afterwards: at a bar with one symbol there are no others, so the z-score has none."""


def funding_features(freq: str) -> Config:
    """Return the features that Alpha158 does not have, as Qlib's expressions and their names."""
    per_day = bars_per_day(freq)
    features = {
        # What was paid last, what will be paid next, and both per eight hours.
        "FRATE": "$funding_rate",
        "FRATE8H": f"$funding_rate*{_BENCH_HOURS}/$funding_interval",
        "FNEXT": "$funding_predicted",
        "FNEXT8H": f"$funding_predicted*{_BENCH_HOURS}/$funding_interval",
        "FTURN": "$funding_predicted-$funding_rate",
        # When: the share of the interval that is still to go.
        "FHOURS": "$funding_interval",
        "FWAIT": "$minutes_to_funding/($funding_interval*60)",
        # Who: the place among all instruments, and how it moved within a day.
        "FRANK": "$funding_rank",
        "FCLIMB": f"Ref($funding_rank, {per_day})-$funding_rank",
        "COVER": "$coverage",
    }
    for days in FUNDING_DAYS:
        bars = days * per_day
        features |= {
            f"FPAID{days}D": f"Sum($funding_paid, {bars})",
            # What a short position has earned: the funding that longs paid, less what the price has risen.
            f"FSHORT{days}D": f"Sum($funding_paid, {bars})-($close/Ref($close, {bars})-1)",
        }
        if bars > 1:
            features |= {
                f"FDEV{days}D": f"$funding_rate-Mean($funding_rate, {bars})",
                f"FSTD{days}D": f"Std($funding_rate, {bars})",
                f"FCORR{days}D": f"RelCorr($close/Ref($close, 1), $funding_rate, {bars})",
                f"COVER{days}D": f"Mean($coverage, {bars})",
            }
    return list(features.values()), list(features)


def without_unit(expression: str) -> str:
    """Return one of Alpha158's expressions so that its value is the same whatever prices and coins are counted in.

    Sizes are those of the quote currency. What keeps a division from one by 0 is as small beside the price as 1e-12 is
    beside 1; where sizes are divided it stays, since one unit of the quote currency is the same for all. Corr and
    Rsquare are those of `perps.operators`.
    """
    found = expression.replace("$volume", "$amount").replace("Corr(", "RelCorr(").replace("Rsquare(", "RelRsquare(")
    return found if "$amount" in found else found.replace("+1e-12", "+1e-12*$close")


def price_return(horizon: int = 1) -> Config:
    """Return the label: what prices earn a long position that is opened at the next open and held for some bars.

    A signal of bar t is known at its close, and `PerpExchange` trades it an instant later, at the open of bar t+1.
    (Qlib's Alpha158 waits for the close of bar t+1, which in a market without nights is a bar lost.)
    """
    return [f"Ref($open, -{1 + horizon})/Ref($open, -1)-1"], ["PRICE_RETURN"]


def total_return(freq: str, horizon: int = 1) -> Config:
    """Return the label that is `price_return` less the funding that the position pays.

    What settles at the instant of an open is paid by whoever held before. Up to 60min everything settles at such an
    instant, so a position pays from the open of bar t+2 on, up to and including that at which it ends: exact. Longer
    bars hold several settlements; those of the bars in which it is held stand for the position's, which are these less
    the first one, plus the one at its end.
    """
    (price,), _ = price_return(horizon)
    end = 1 + horizon if bars_per_day(freq) >= _HOURS_PER_DAY else horizon
    return [f"{price}-Ref(Sum($funding_paid, {horizon}), -{end})"], ["TOTAL_RETURN"]


def within_life(config: Config) -> Config:
    """Return expressions that see the life of each bar only, with the same names; see `perps.lives.WithinLife`.

    A window begins with a life, as it does with a listing, and a label that ends in another life is NaN.
    """
    expressions, names = config
    return [f"{WithinLife.__name__}({expression})" for expression in expressions], list(names)


class FundingAlpha158(Alpha158):
    """Alpha158 plus `funding_features`, with a label and processors for a market that never closes.

    Features and labels, also one that is given, stay within the life of a symbol.

    freq: `day`, `60min`, `1min` or any other that the data has. horizon: bars that the label looks ahead: a longer one
    makes predictions that last, which costs less to trade. label: expressions and names, as Alpha158 takes them;
    `total_return(freq, horizon)` unless given. All other arguments are Alpha158's; TypeError where it has no such
    one. instruments: `top50` has only
    bars of members, with windows that look back on what was before they became members; `all` has every bar.
    """

    def __init__(
        self,
        instruments: str | Sequence[str] | Mapping[str, Any] = "all",
        *,
        start_time: Any = None,
        end_time: Any = None,
        freq: str = "day",
        horizon: int = 1,
        infer_processors: Sequence[Any] = (),
        learn_processors: Sequence[Any] = LEARN_PROCESSORS,
        **kwargs: Any,
    ) -> None:
        check_names(type(self).__name__, kwargs, (names_of(Alpha158) | {"label"}) - {"data_loader"})
        register()
        if "label" in kwargs:
            kwargs["label"] = within_life(kwargs["label"])
        # Alpha158's constructor asks for features and label, without arguments.
        self._freq, self._horizon = freq, horizon
        super().__init__(
            instruments=instruments,
            start_time=None if start_time is None else instant("start_time", start_time),
            end_time=None if end_time is None else instant("end_time", end_time),
            freq=freq,
            infer_processors=copy.deepcopy(list(infer_processors)),
            learn_processors=copy.deepcopy(list(learn_processors)),
            **kwargs,
        )

    def get_feature_config(self) -> Config:
        """Return Alpha158's features, then the funding features. No feature depends on the unit of a price."""
        expressions, names = super().get_feature_config()
        expressions = [without_unit(expression) for expression in expressions]
        more_expressions, more_names = funding_features(self._freq)
        return within_life(([*expressions, *more_expressions], [*names, *more_names]))

    def setup_data(self, *args: Any, **kwargs: Any) -> None:
        """Load and process; see Qlib's DataHandlerLP. Raises `ValueError` where there is nothing to learn from."""
        super().setup_data(*args, **kwargs)
        if getattr(self, "_learn", None) is not None:
            check_trainable(self._learn, f"the {self._freq} bars of {self.instruments}")

    def get_label_config(self) -> Config:
        """Return the label where none is given."""
        return within_life(total_return(self._freq, self._horizon))
