"""What a PerpAnaRecord keeps is what a backtest returns, and mlflow shows the same."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("qlib", reason="pyqlib lives in the research environment: make test-qlib")

import perps
from perps.records import PerpAnaRecord, metrics, qlib_name, risk_table, tradable_span, universe_returns
from perps.report import report
from qlib.data import D
from qlib.utils.exceptions import LoadObjectError
from qlib.workflow import R

from tests.research.market_folder import Market, write_folder
from tests.research.provider import Symbol, write_provider
from tests.research.trading import run as trading_run

FREQ = "60min"
STRATEGY = {
    "class": "LongShortTopK",
    "module_path": "perps.strategies",
    "kwargs": {"signal": "<PRED>", "topk": 2, "n_drop": 1},
}
EXCHANGE = {"taker_fee": 0.0005, "slippage": 0.0002, "leverage": 2}
BEGIN, END = "2025-04-10 05:00:00", "2025-04-12 04:00:00"


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("records")
    write_folder(root / "qlib_data", Market(symbols=8, days=12))
    perps.init(root / "qlib_data", experiments=root / "experiments")


@pytest.fixture(scope="module")
def predictions(folder):
    """Give some scores, as a SignalRecord would have stored them: yesterday's losers first."""
    frame = D.features(D.instruments("all"), ["1-$close/Ref($close, 24)"], BEGIN, END, freq=FREQ)
    frame.columns = ["score"]
    return frame.swaplevel().sort_index()


@pytest.fixture(scope="module")
def recorder(predictions):
    """Give a recorder in which the record has run, on the account of the predictions alone."""
    with R.start(experiment_name="records"):
        recorder = R.get_recorder()
        recorder.save_objects(**{"pred.pkl": predictions, "label.pkl": predictions})
        PerpAnaRecord(recorder, STRATEGY, freq=FREQ, account=50_000, exchange=EXCHANGE).generate()
    return recorder


@pytest.fixture(scope="module")
def direct(predictions):
    """Give the same backtest without the record."""
    strategy = perps.LongShortTopK(signal=predictions, topk=2, n_drop=1)
    begin, end = (pd.Timestamp(time) + pd.Timedelta("1h") for time in (BEGIN, END))
    benchmark = universe_returns(predictions, FREQ)
    return perps.backtest(strategy, begin, end, freq=FREQ, account=50_000, exchange=EXCHANGE, benchmark=benchmark)


def test_what_is_kept_is_what_the_backtest_returned(recorder, direct):
    kept = {name: recorder.load_object(f"portfolio_analysis/{name}") for name in ("ledger.pkl", "ledger_by_symbol.pkl")}
    bars = recorder.load_object("portfolio_analysis/report_normal_60min.pkl")
    positions = recorder.load_object("portfolio_analysis/positions_normal_60min.pkl")

    pd.testing.assert_frame_equal(kept["ledger.pkl"], direct.ledger)
    pd.testing.assert_frame_equal(kept["ledger_by_symbol.pkl"], direct.by_symbol)
    pd.testing.assert_frame_equal(bars, direct.report)
    assert list(positions) == list(direct.positions)


def test_funding_is_apart_from_prices_and_fees(recorder):
    ledger = recorder.load_object("portfolio_analysis/ledger.pkl")

    settling = ledger.index.hour % 8 == 0
    assert (ledger["funding"][settling] != 0).sum() > 3
    assert (ledger["funding"][~settling] == 0).all()
    flows = ledger["price"] + ledger["funding"] - ledger["fee"] - ledger["slippage"]
    np.testing.assert_allclose(50_000 + flows.cumsum(), ledger["equity"], rtol=1e-12)


def test_risk_is_annualised_at_365_days_of_24_hours_where_there_are_enough(recorder, direct):
    table = recorder.load_object("portfolio_analysis/risk.pkl")

    net = direct.report["return"] - direct.report["cost"]
    assert table.loc[("net", "annualized_volatility"), "risk"] == pytest.approx(net.std() * (365 * 24) ** 0.5)
    assert table.loc[("net", "total_return"), "risk"] == pytest.approx((1 + net).prod() - 1)
    assert table.loc[("net", "mean_error"), "risk"] == pytest.approx(net.std() / len(net) ** 0.5)
    assert np.isnan(table.loc[("net", "annualized_return"), "risk"])  # of two days
    assert np.isnan(table.loc[("net", "information_ratio"), "risk"])
    excess = net - direct.report["bench"]
    assert table.loc[("net_less_benchmark", "mean"), "risk"] == pytest.approx(excess.mean())


def test_mlflow_shows_every_measure_and_where_it_came_from(recorder, direct):
    shown = recorder.list_metrics()

    assert shown == pytest.approx(metrics(direct, risk_table(direct, FREQ)), nan_ok=True)
    parts = sum(shown[f"pnl.{name}"] for name in ("price", "funding", "fee", "slippage"))
    assert parts == pytest.approx(shown["net.total_return"])
    assert shown["pnl.fee"] < 0
    assert shown["pnl.slippage"] == pytest.approx(shown["pnl.fee"] * 2 / 5, rel=1e-3)
    assert shown["turnover_a_day"] > 0


def test_the_picture_is_kept_and_can_be_drawn_again(recorder):
    assert "portfolio_analysis/report.png" in recorder.list_artifacts("portfolio_analysis")

    figure = report(recorder, title="Again")

    assert "Again" in [text.get_text() for text in figure.texts]


def test_the_record_knows_what_it_keeps(recorder):
    record = PerpAnaRecord(recorder, STRATEGY, freq=FREQ, skip_existing=True)

    record.check(include_self=True)

    kept = [f"portfolio_analysis/{name}" for name in record.list()]
    assert sorted(kept) == sorted(recorder.list_artifacts("portfolio_analysis"))
    assert record.generate() is None


def test_a_signal_is_traded_in_the_bar_after_its_own(predictions):
    assert tradable_span(predictions, FREQ) == (
        pd.Timestamp("2025-04-10 06:00:00"),
        pd.Timestamp("2025-04-12 05:00:00"),
    )


@pytest.mark.parametrize(("future", "last"), [(True, "2025-04-16 23:00:00"), (False, "2025-04-16 22:00:00")])
def test_the_last_bar_is_left_out_where_nothing_says_when_the_next_one_begins(predictions, monkeypatch, future, last):
    """As at 1min, which has no future calendar."""
    known = D.calendar(freq=FREQ)
    calendar = D.calendar(freq=FREQ, future=future)
    monkeypatch.setattr("perps.records.D.calendar", lambda future=False, **_: calendar if future else known)
    newest = predictions.copy()
    shift = known[-1] - newest.index.levels[0].max()
    newest.index = newest.index.set_levels(newest.index.levels[0] + shift, level=0)

    assert tradable_span(newest, FREQ)[1] == pd.Timestamp(last)


def test_the_universe_is_the_mean_of_those_that_had_a_prediction_in_the_bar_before(predictions):
    few = predictions.drop(index=[(pd.Timestamp("2025-04-10 09:00:00"), "BTC_USDT")])

    found = universe_returns(few, FREQ)

    closes = D.features(D.instruments("all"), ["$close/Ref($close, 1)-1"], BEGIN, END, freq=FREQ).iloc[:, 0]
    bar = pd.Timestamp("2025-04-10 10:00:00")
    here = closes.xs(bar, level="datetime")
    assert found[bar] == pytest.approx(here.drop("BTC_USDT").mean(), rel=1e-5)
    later = bar + pd.Timedelta("1h")
    assert found[later] == pytest.approx(closes.xs(later, level="datetime").mean(), rel=1e-5)


def test_without_predictions_nothing_is_done(folder):
    with R.start(experiment_name="empty"):
        recorder = R.get_recorder()
        PerpAnaRecord(recorder, STRATEGY, freq=FREQ).generate()

    with pytest.raises(LoadObjectError):
        recorder.load_object("portfolio_analysis/ledger.pkl")


@pytest.mark.parametrize(("freq", "name"), [("day", "1day"), ("60min", "60min"), ("1min", "1min")])
def test_frequencies_are_named_as_qlib_names_them(freq, name):
    assert qlib_name(freq) == name


def test_gross_is_without_fees_and_without_slippage(tmp_path):
    path = write_provider(tmp_path / "qlib_data", "60min", {"A": Symbol([100.0, 110, 121, 121])}, 4)
    perps.init(path, experiments=tmp_path / "experiments")

    run = trading_run({0: [("A", 2.0)]}, (0, 3), taker_fee=0.001, slippage=0.01)
    table = risk_table(run, "60min")["risk"]

    paid = 2 * 100 * 0.01 + 2 * 101 * 0.001  # slippage and fee of the first bar, in which the close is the open
    assert run.gross.tolist() == pytest.approx([0, 20 / (1000 - paid), 22 / (1020 - paid), 0])
    assert run.returns.tolist() == pytest.approx([-paid / 1000, 20 / (1000 - paid), 22 / (1020 - paid), 0])
    assert table["gross", "total_return"] == pytest.approx((1 + run.gross).prod() - 1)


def test_a_benchmark_and_a_universe_have_no_return_from_one_life_to_the_next(tmp_path):
    closes = {"A": Symbol([100.0, 110, 5000, 5500], 0, {"life": [1, 1, 2, 2]}), "B": Symbol([10.0, 10, 10, 10])}
    perps.init(write_provider(tmp_path / "qlib_data", "60min", closes, 4), experiments=tmp_path / "experiments")
    times = pd.MultiIndex.from_product([D.calendar(freq=FREQ), ["A", "B"]], names=["datetime", "instrument"])

    universe = universe_returns(pd.DataFrame({"score": 1.0}, index=times), FREQ)
    bench = trading_run({}, (0, 3), benchmark="A").report["bench"]

    assert universe.tolist() == pytest.approx([0, 0.05, 0, 0.05], abs=1e-6)
    assert bench.tolist() == pytest.approx([0, 0.1, 0, 0.1], abs=1e-6)
