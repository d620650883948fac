"""PerpAnaRecord: the backtest at the end of a workflow, kept by mlflow with everything that is worth comparing."""

import copy
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from qlib.data import D
from qlib.log import get_module_logger
from qlib.utils import fill_placeholder
from qlib.utils.time import Freq
from qlib.workflow.record_temp import ACRecordTemp, SignalRecord

from perps.operators import bar_return
from perps.pnl import begin_of
from perps.report import ARTIFACTS, FORCED, LEDGER, REPORT, Earned, ic_of, report
from perps.risk import risk
from perps.simulation import Backtest, backtest

UNIVERSE = "universe"
"""The benchmark that always exists: all symbols that had a prediction, long, in equal weights, at no cost."""

_LOG = get_module_logger("perps")


class PerpAnaRecord(ACRecordTemp):
    """Backtest the predictions of a `SignalRecord` as perpetual futures, and record what came of it.

    Artifacts, in `portfolio_analysis`: `ledger.pkl` and `ledger_by_symbol.pkl` (P&L of prices and of funding, fees and
    slippage of each bar, see `perps.ledger`), `risk.pkl` (`perps.risk` at 365 days: gross of costs, net, net less
    benchmark; figures of a year only where the sample is long enough), `report.png` (`perps.report`); under Qlib's own
    names `report_normal_<freq>.pkl` and `positions_normal_<freq>.pkl`.
    Metrics, for mlflow: every measure of risk; P&L of prices, funding, fees and slippage as shares of the account at
    the start; turnover a day as a multiple of the equity; forced closings.

    Parameters
    ----------
    strategy: Qlib's config of a strategy; `<PRED>` in it stands for the predictions
    freq: of the bars
    start_time, end_time: first and last bar; where left out, those that the predictions can be traded in
    benchmark: `universe`, a symbol, a list of symbols or returns; see `UNIVERSE`
    account, exchange, executor: see `perps.backtest`
    skip_existing: do nothing where all artifacts are there already
    """

    artifact_path = ARTIFACTS
    depend_cls = SignalRecord

    def __init__(
        self,
        recorder: Any,
        strategy: Mapping[str, Any],
        *,
        freq: str = "day",
        start_time: Any = None,
        end_time: Any = None,
        account: float | dict[str, Any] = 100_000.0,
        benchmark: Any = UNIVERSE,
        exchange: Mapping[str, Any] | None = None,
        executor: Mapping[str, Any] | None = None,
        skip_existing: bool = False,
    ) -> None:
        super().__init__(recorder=recorder, skip_existing=skip_existing)
        self.strategy = copy.deepcopy(dict(strategy))
        self.freq = freq
        self.span = (start_time, end_time)
        self.account = account
        self.benchmark = benchmark
        self.exchange = dict(exchange or {})
        self.executor = dict(executor or {})

    def list(self) -> list[str]:
        """Return the names of the artifacts."""
        kind = qlib_name(self.freq)
        own = [LEDGER, "ledger_by_symbol.pkl", "risk.pkl", REPORT]
        return [*own, f"report_normal_{kind}.pkl", f"positions_normal_{kind}.pkl"]

    def _generate(self, **_: Any) -> dict[str, Any]:
        predictions: pd.DataFrame = self.load("pred.pkl")
        first, last = tradable_span(predictions, self.freq)
        run = backtest(
            fill_placeholder(self.strategy, {"<PRED>": predictions}),
            self.span[0] or first,
            self.span[1] or last,
            freq=self.freq,
            account=self.account,
            benchmark=universe_returns(predictions, self.freq) if self._on_universe() else self.benchmark,
            exchange=self.exchange,
            **self.executor,
        )
        table = risk_table(run, self.freq)
        self.recorder.log_metrics(**metrics(run, table))
        self._draw(run)
        columns = {what: table.loc[what, "risk"] for what in table.index.levels[0]}
        for note in run.notes:
            _LOG.warning(note)
        _LOG.info("Risk at 365 days, %s bars:\n%s", self.freq, pd.DataFrame(columns).to_string())
        kind = qlib_name(self.freq)
        return {
            LEDGER: run.ledger,
            "ledger_by_symbol.pkl": run.by_symbol,
            "risk.pkl": table,
            f"report_normal_{kind}.pkl": run.report,
            f"positions_normal_{kind}.pkl": run.positions,
        }

    def _on_universe(self) -> bool:
        return isinstance(self.benchmark, str) and self.benchmark == UNIVERSE

    def _draw(self, run: Backtest) -> None:
        """Draw the report; the IC is there if a SigAnaRecord ran before."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / REPORT
            report(run, ic=ic_of(self.recorder), title=f"{self.strategy['class']}, {self.freq}", path=path)
            self.recorder.log_artifact(str(path), self.artifact_path)
        _LOG.info("The report is a picture: %s/%s/%s", self.recorder.get_artifact_uri(), self.artifact_path, REPORT)


def qlib_name(freq: str) -> str:
    """Return a frequency as Qlib's artifacts have it: `1day`, `60min`."""
    count, unit = Freq.parse(freq)
    return f"{count}{unit}"


def tradable_span(predictions: pd.DataFrame, freq: str) -> tuple[pd.Timestamp, pd.Timestamp]:
    """Return the first and the last bar in which predictions can be traded: each in the bar after its own.

    Qlib's backtest needs to know when the bar after the last one begins; where nothing gives it (no future calendar, as
    at 1min), the last bar is left out.
    """
    times = predictions.index.get_level_values("datetime")
    known, planned = D.calendar(freq=freq), D.calendar(freq=freq, future=True)
    first = known[min(int(np.searchsorted(known, times.min())) + 1, len(known) - 1)]
    place = min(int(np.searchsorted(known, times.max())) + 1, len(known) - 1, len(planned) - 2)
    return first, known[place]


def universe_returns(predictions: pd.DataFrame, freq: str) -> pd.Series:
    """Return the mean return of each bar over the symbols that had a prediction in the bar before."""
    times = predictions.index.get_level_values("datetime")
    symbols = sorted(set(predictions.index.get_level_values("instrument")))
    known = D.calendar(freq=freq)
    end = known[min(int(np.searchsorted(known, times.max())) + 1, len(known) - 1)]
    closes = D.features(symbols, [bar_return()], times.min(), end, freq=freq).iloc[:, 0]
    returns = closes.astype("float64").unstack(level="instrument")  # noqa: PD010 - reshapes, has nothing to aggregate
    scores = predictions.iloc[:, 0].unstack(level="instrument")  # noqa: PD010 - the same
    predicted = scores.reindex_like(returns).notna().shift(1, fill_value=False)
    mean: pd.Series = returns.where(predicted).mean(axis=1).fillna(0.0)
    return mean


def risk_table(run: Backtest, freq: str) -> pd.DataFrame:
    """Return the risk of a backtest gross of costs, net, and net less the benchmark; index: (what, measure)."""
    series = {
        "gross": run.gross,
        "net": run.returns,
        "net_less_benchmark": run.returns - run.report["bench"],
    }
    return pd.concat({name: risk(returns, freq) for name, returns in series.items()})


def metrics(run: Backtest, table: pd.DataFrame) -> dict[str, float]:
    """Return what mlflow shows of a backtest, as flat names."""
    ledger = run.ledger
    begin = begin_of(ledger)
    measures = {f"{what}.{measure}": float(value) for (what, measure), value in table["risk"].items()}
    shares = {f"pnl.{flow}": float(ledger[flow].sum() / begin) for flow in ("price", "funding")}
    shares |= {f"pnl.{flow}": -float(ledger[flow].sum() / begin) for flow in ("fee", "slippage")}
    counts = {name: float(ledger[name].sum()) for name in (*FORCED, "funding_unknown")}
    return {**measures, **shares, **counts, "turnover_a_day": Earned(ledger, None, None).turnover_a_day}
