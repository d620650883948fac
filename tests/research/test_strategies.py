"""Strategies: what they choose, and a whole run against an independent computation with numpy."""

import pytest

pytest.importorskip("qlib", reason="pyqlib lives in the research environment: make test-qlib")

from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import pairwise

import numpy as np
import pandas as pd
import perps
from hypothesis import given
from hypothesis import strategies as st
from perps.example import compare
from perps.strategies import funding_pairs

from tests.research.market_folder import Market as MarketFolder
from tests.research.market_folder import write_folder
from tests.research.provider import Symbol, bar, f32, write_delisted, write_provider

BARS = 60 * 24
NAMES = [f"S{number:02}_USDT" for number in range(20)]
LATE, GONE, HOLE = 3, 7, 11
"""Listed late, delisted early, without prices for a day: places in NAMES."""


# --- choosing


def test_the_highest_signals_are_long_and_the_lowest_short():
    strategy = perps.LongShortTopK(topk=2)
    scores = pd.Series({"A": 0.1, "B": -3.0, "C": 2.0, "D": float("nan"), "E": 1.0, "F": 0.0})
    assert strategy.choose(scores, {}) == (["C", "E"], ["F", "B"])


def test_equal_signals_are_in_the_order_of_names_and_few_symbols_are_divided_evenly():
    strategy = perps.LongShortTopK(topk=5)
    assert strategy.choose(pd.Series({"C": 1.0, "A": 1.0, "B": 1.0}), {}) == (["A"], ["C"])
    assert strategy.choose(pd.Series({"A": 1.0}), {}) == ([], [])


def test_n_drop_replaces_the_worst_of_each_side_by_the_best_that_are_free():
    strategy = perps.LongShortTopK(topk=2, n_drop=1)
    scores = pd.Series({"A": 8.0, "B": 7.0, "C": 6.0, "D": 5.0, "E": 4.0, "F": 3.0, "G": 2.0, "H": 1.0})
    assert strategy.choose(scores, {}) == (["A", "B"], ["H", "G"])
    # C and D are long, the free A is better than both: D leaves. E and F are short, H is lower than both: E leaves.
    longs, shorts = strategy.choose(scores, {"C": 1.0, "D": 2.0, "E": -1.0, "F": -3.0})
    assert (longs, shorts) == (["C", "A"], ["F", "H"])
    # What is on the right side already stays.
    assert strategy.choose(scores, {"A": 1.0, "B": 2.0, "G": -1.0, "H": -3.0}) == (["A", "B"], ["H", "G"])


def test_n_drop_lets_a_symbol_change_sides_where_every_one_is_held():
    strategy = perps.LongShortTopK(topk=2, n_drop=1)
    held = {"A": 1.0, "B": 1.0, "C": -1.0, "D": -1.0}

    longs, shorts = strategy.choose(pd.Series({"D": 4.0, "A": 3.0, "B": 2.0, "C": 1.0}), held)

    assert set(longs) == {"A", "D"}
    assert set(shorts) == {"B", "C"}


def test_n_drop_fills_empty_places_and_drops_what_has_no_signal_any_more():
    strategy = perps.LongShortTopK(topk=2, n_drop=1)
    scores = pd.Series({"A": 4.0, "B": 3.0, "C": 2.0, "D": 1.0})
    assert strategy.choose(scores, {"B": 1.0, "X": 1.0, "C": -1.0, "Y": -1.0}) == (["B", "A"], ["C", "D"])


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="topk is 0"):
        perps.LongShortTopK(topk=0)
    with pytest.raises(ValueError, match="n_drop is 0"):
        perps.LongShortTopK(topk=1, n_drop=0)


SCORES = st.dictionaries(st.sampled_from("ABCDEFGHIJ"), st.floats(-1, 1) | st.just(float("nan")), max_size=10)
HELD = st.dictionaries(st.sampled_from("ABCDEFGHIJ"), st.sampled_from([-1.0, 1.0]), max_size=8)


@given(scores=SCORES, held=HELD, topk=st.integers(1, 4), n_drop=st.none() | st.integers(1, 3))
def test_sides_share_no_symbol_have_signals_and_drop_only_the_worst(scores, held, topk, n_drop):
    known = {symbol for symbol, score in scores.items() if not np.isnan(score)}
    longs, shorts = perps.LongShortTopK(topk=topk, n_drop=n_drop).choose(pd.Series(scores, dtype="float64"), held)
    assert len({*longs, *shorts}) == len(longs) + len(shorts)
    assert {*longs, *shorts} <= known
    assert max(len(longs), len(shorts)) <= min(topk, len(known) // 2)
    if n_drop is None:
        assert len(longs) == len(shorts) == min(topk, len(known) // 2)
        return
    for side, sign in ((longs, 1), (shorts, -1)):
        kept = {symbol for symbol in known if held.get(symbol) == sign}
        dropped = kept - set(side)
        assert len(dropped) <= max(n_drop, len(kept) - min(topk, len(known) // 2))
        worst_kept = min((sign * scores[s] for s in side if s in kept), default=np.inf)
        assert all(sign * scores[s] <= worst_kept for s in dropped)


# --- pairs that are worth their costs

COST = 0.0014  # of opening and closing a leg


def test_a_pair_is_taken_where_it_earns_more_than_its_two_legs_cost():
    income = pd.Series({"A": 0.0020, "B": -0.0009, "C": 0.0012, "D": -0.0015, "E": float("nan"), "F": 0.0001})

    # A over D earns 0.0035, C over B 0.0021: less than 2 x 0.0014.
    assert funding_pairs(income, {}, COST, topk=3) == (["D"], ["A"])
    assert funding_pairs(income, {}, COST / 2, topk=3) == (["D", "B"], ["A", "C"])
    assert funding_pairs(income, {}, COST / 2, topk=1) == (["D"], ["A"])
    assert funding_pairs(income, {}, 0.00175, topk=3) == ([], [])


def test_a_leg_that_is_held_has_paid_already():
    income = pd.Series({"A": 0.0010, "B": -0.0002, "C": 0.0011})

    assert funding_pairs(income, {}, COST, topk=1) == ([], [])
    # Both held: it is enough that they earn anything. One held: the other one's costs are to be earned, too.
    assert funding_pairs(income, {"A": -1.0, "B": 2.0}, COST, topk=1) == (["B"], ["A"])
    assert funding_pairs(income, {"A": -1.0}, COST, topk=1) == ([], [])
    assert funding_pairs(income - 0.0003, {"B": 1.0}, COST / 2, topk=1) == (["B"], ["C"])
    # What pays against its side is left.
    assert funding_pairs(income, {"A": 1.0, "B": -2.0}, COST, topk=1) == ([], [])


@given(
    income=st.dictionaries(st.sampled_from("ABCDEFGH"), st.floats(-0.01, 0.01) | st.just(float("nan")), max_size=8),
    held=HELD,
    topk=st.integers(1, 4),
)
def test_pairs_are_apart_and_each_earns_what_its_legs_have_still_to_pay(income, held, topk):
    longs, shorts = funding_pairs(pd.Series(income, dtype="float64"), held, COST, topk)

    assert len(longs) == len(shorts) <= topk
    assert len({*longs, *shorts}) == 2 * len(longs)
    for long, short in zip(longs, shorts, strict=True):
        still_to_pay = COST * ((held.get(long, 0) <= 0) + (held.get(short, 0) >= 0))
        assert income[short] - income[long] > still_to_pay - 1e-12


@pytest.fixture
def two_payers(tmp_path):
    """Write a market in which A pays 0.3 % every 8 hours and B receives it, until both turn; C pays what is usual."""
    hours = np.arange(40)
    rate = np.where(hours < 20, 0.003, -0.0001)
    wait = 60.0 * (7 - hours % 8)

    def symbol(sign, scale=1.0):
        paid = np.where((hours % 8 == 0) & (hours > 0), sign * scale * rate, 0.0)
        return Symbol(
            [100.0] * 40,
            0,
            {"funding_predicted": sign * scale * rate, "funding_paid": paid, "minutes_to_funding": wait},
        )

    rows = {"A": symbol(1), "B": symbol(-1), "C": symbol(1, 0.01)}
    perps.init(write_provider(tmp_path / "qlib_data", "60min", rows, 40), experiments=tmp_path / "experiments")


def test_pairs_are_opened_in_the_last_bar_before_a_settlement_and_left_when_they_pay_no_more(two_payers):
    settings = {"taker_fee": 0.0005, "slippage": 0.0002}

    run = perps.backtest(perps.FundingPairs(topk=1), bar(1), bar(39), freq="60min", account=1000.0, exchange=settings)

    ledger = run.ledger
    # Known at 07:00: 0.3 % of 500 each way at 08:00, three times, for 2 x 0.14 %. At 23:00 both are expected to turn.
    assert np.flatnonzero(ledger["turnover"]).tolist() == [7 - 1, 23 - 1]
    assert ledger["funding"].iloc[[7, 15]].tolist() == pytest.approx([2 * 500 * 0.003] * 2, rel=1e-6)
    assert ledger["funding"].sum() == pytest.approx(4 * 500 * 0.003, rel=1e-6)
    assert (ledger["fee"] + ledger["slippage"]).sum() == pytest.approx(4 * 500 * 0.0007, rel=1e-3)
    assert ledger["equity"].iloc[-1] == pytest.approx(1000 + 6 - 1.4, abs=1e-3)


def test_nothing_is_traded_where_funding_is_not_worth_its_costs(two_payers):
    run = perps.backtest(
        perps.FundingPairs(topk=1, settlements=0.4), bar(1), bar(39), freq="60min", exchange={"slippage": 0.0002}
    )

    assert run.ledger["equity"].eq(100_000).all()
    with pytest.raises(ValueError, match="settlements is 0"):
        perps.FundingPairs(topk=1, settlements=0)


def test_the_example_says_where_the_money_came_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "qlib_data", MarketFolder(symbols=6, days=6))

    table, runs = compare("qlib_data")

    assert list(table.columns) == list(runs) == ["FundingCarry", "FundingPairs"]
    parts = table.loc[["prices, %", "funding, %", "fees and slippage, %"]].sum()
    ends = [run.ledger["equity"].iloc[-1] / 1000 - 100 for run in runs.values()]
    assert table.loc["total, %"].tolist() == parts.tolist() == pytest.approx(ends)
    assert table.loc[["Sharpe ratio", "its error"]].isna().all().all()  # of six days


# --- a synthetic market of 20 symbols and 60 days


@dataclass(frozen=True)
class Market:
    """Bars x symbols, as Qlib reads them: float32 values in float64."""

    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    funding_rate: np.ndarray
    funding_predicted: np.ndarray
    funding_paid: np.ndarray
    funding_interval: np.ndarray
    signal: np.ndarray

    def symbols(self) -> dict[str, Symbol]:
        return {name: self._symbol(column) for column, name in enumerate(NAMES)}

    def _symbol(self, column: int) -> Symbol:
        first, end = {LATE: (500, BARS), GONE: (0, 1000)}.get(column, (0, BARS))
        names = [name for name in self.__dataclass_fields__ if name not in {"signal", "close"}]
        fields = {name: getattr(self, name)[first:end, column] for name in names}
        return Symbol(self.close[first:end, column], first, fields)

    def predictions(self) -> pd.Series:
        """Return the signal as a model would."""
        index = pd.MultiIndex.from_product([pd.to_datetime([bar(n) for n in range(BARS)]), NAMES])
        series = pd.Series(self.signal.ravel(), index=index.set_names(["datetime", "instrument"]))
        return series.dropna()


def draw(seed: int = 5) -> Market:
    random = np.random.default_rng(seed)
    shape = BARS, len(NAMES)
    close = np.geomspace(60_000, 0.02, len(NAMES)) * np.exp(np.cumsum(0.006 * random.standard_normal(shape), axis=0))
    open_ = np.vstack([close[:1], close[:-1]]) * (1 + 0.0005 * random.standard_normal(shape))
    interval = np.where(np.arange(len(NAMES)) % 4 == 0, 4.0, 8.0) * np.ones(shape)
    settles = np.arange(BARS)[:, None] % interval == 0
    rates = 2e-4 * random.standard_normal(shape).cumsum(axis=0) / 5
    paid = np.where(settles, rates, 0.0)
    rate = pd.DataFrame(np.where(settles, rates, np.nan)).ffill().to_numpy()
    predicted = rates + 1e-4 * random.standard_normal(shape)
    predicted[random.random(shape) < 0.2] = np.nan
    prices = {
        "open": open_,
        "high": np.maximum(open_, close) * (1 + 0.002 * random.random(shape)),
        "low": np.minimum(open_, close) * (1 - 0.002 * random.random(shape)),
        "close": close,
    }
    for values in prices.values():
        values[700:724, HOLE] = np.nan
    funding = {"funding_rate": rate, "funding_predicted": predicted, "funding_paid": paid, "funding_interval": interval}
    everything = {name: f32(values) for name, values in (prices | funding).items()}
    for values in everything.values():
        values[:500, LATE] = np.nan
        values[1000:, GONE] = np.nan
    signal = random.standard_normal(shape)
    return Market(**everything, signal=np.where(np.isnan(everything["close"]), np.nan, signal))


@dataclass(frozen=True)
class Rules:
    """What a run is given."""

    topk: int = 4
    leverage: float = 1.5
    cap: float = 3.0
    fee: float = 0.0005
    slippage: float = 0.0003
    at_close: bool = False


def equity_curve(market: Market, scores: np.ndarray, rules: Rules) -> np.ndarray:
    """Compute the account from the definitions, all symbols at once; rows of `scores` are known when their bar ends."""
    known = pd.DataFrame(market.close).ffill().to_numpy()
    fill = market.close if rules.at_close else market.open
    last_bar = np.array([np.flatnonzero(~np.isnan(column))[-1] for column in market.close.T])
    paid = np.nan_to_num(market.funding_paid)
    amounts, cash = np.zeros(len(NAMES)), 100_000.0
    mark = np.zeros(len(NAMES))  # the last close known, 0 where there was none yet
    curve = []
    for now in range(1, BARS):
        target = np.zeros(len(NAMES))
        signal = scores[now - 1]
        ranked = [column for column in np.argsort(-signal, kind="stable") if not np.isnan(signal[column])]
        side = min(rules.topk, len(ranked) // 2)
        notional = (cash + amounts @ mark) * rules.leverage / 2 / side
        target[ranked[:side]], target[ranked[-side:]] = notional, -notional
        price_known = np.nan_to_num(known[now - 1], nan=1.0)
        change = target / price_known - amounts
        # What was delisted is settled; what is held pays funding; then the orders are done.
        gone = (last_bar < now) & (amounts != 0)
        cash += (amounts * mark)[gone].sum()
        amounts = np.where(gone, 0.0, amounts)
        cash -= (amounts * mark * paid[now]).sum()
        price = np.where(np.isnan(fill[now]), mark, fill[now])
        change = np.where(np.isnan(fill[now]), 0.0, change)
        change = capped(change, amounts, price, cash, rules)
        filled = price * (1 + np.sign(change) * rules.slippage)
        cash -= (change * filled).sum() + (np.abs(change) * filled * rules.fee).sum()
        amounts = amounts + change
        mark = np.where(np.isnan(market.close[now]), mark, market.close[now])
        curve.append(cash + amounts @ mark)
    return np.array(curve)


def capped(change, amounts, price, cash, rules) -> np.ndarray:
    """Find the share of what is opened by bisection: the largest with gross <= cap x equity after costs."""
    closing = np.where(change * amounts < 0, np.sign(change) * np.minimum(np.abs(change), np.abs(amounts)), 0.0)
    opening = change - closing

    def room(share: float) -> float:
        trade = closing + share * opening
        filled = price * (1 + np.sign(trade) * rules.slippage)
        after = cash - (trade * filled).sum() - (np.abs(trade) * filled * rules.fee).sum()
        gross = np.abs(amounts + trade) @ price
        return rules.cap * (after + (amounts + trade) @ price) - gross

    if room(1.0) >= 0:
        return change
    low, high = 0.0, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if room(middle) >= 0 else (low, middle)
    return closing + low * opening


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    folder = tmp_path_factory.mktemp("market")
    drawn = draw()
    write_provider(folder / "qlib_data", "60min", drawn.symbols(), BARS)
    write_delisted(folder / "qlib_data", (NAMES[GONE], bar(1000) - timedelta(minutes=1)))
    return drawn, folder


@pytest.fixture
def drawn(market, tmp_path):
    """Set Qlib up for the synthetic market."""
    drawn, folder = market
    perps.init(folder / "qlib_data", experiments=tmp_path)
    return drawn


def run(strategy, rules: Rules, **exchange) -> perps.Backtest:
    settings = {
        "taker_fee": rules.fee,
        "slippage": rules.slippage,
        "leverage": rules.cap,
        "deal_price": "close" if rules.at_close else "open",
    }
    return perps.backtest(strategy, bar(1), freq="60min", exchange=settings | exchange)


def assert_same(result: perps.Backtest, expected: np.ndarray) -> None:
    assert len(expected) == len(result.ledger) == BARS - 1
    assert expected.min() > 1000  # an account that is gone would prove nothing
    assert np.max(np.abs(result.ledger["equity"] / expected - 1)) <= 1e-9


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param(Rules(), id="at the open", marks=pytest.mark.proof),
        pytest.param(Rules(at_close=True), id="at the close"),
        pytest.param(Rules(leverage=2.0, cap=1.2), id="beyond the cap"),
        pytest.param(Rules(topk=9, fee=-0.0001, slippage=0.0), id="rebate", marks=pytest.mark.proof),
    ],
)
def test_a_run_of_the_top_k_equals_an_independent_computation(drawn, rules):
    strategy = perps.LongShortTopK(topk=rules.topk, leverage=rules.leverage, signal=drawn.predictions())
    result = run(strategy, rules)
    assert_same(result, equity_curve(drawn, drawn.signal, rules))
    assert result.ledger["liquidations"].sum() == 0
    # The run begins at bar 1, so this is bar 1000: the first without what is gone.
    assert result.ledger["delistings"].sum() == result.ledger["delistings"].iloc[999] == 1


@pytest.mark.parametrize("per_hour", [True, False])
def test_a_run_of_funding_carry_equals_an_independent_computation(drawn, per_hour):
    rules = Rules(leverage=1.0)
    result = run(perps.FundingCarry(topk=rules.topk, leverage=rules.leverage, per_hour=per_hour), rules)
    expected = np.where(np.isnan(drawn.funding_predicted), drawn.funding_rate, drawn.funding_predicted)
    scores = -expected / (drawn.funding_interval if per_hour else 1.0)
    scores = np.where(np.isnan(drawn.close), np.nan, scores)
    assert_same(result, equity_curve(drawn, scores, rules))
    assert result.ledger["delistings"].sum() <= 1


def test_carry_holds_only_what_its_condition_allows(drawn):
    result = perps.backtest(perps.FundingCarry(topk=2, where="$close > 100"), bar(1), bar(50), freq="60min")
    allowed = {name for column, name in enumerate(NAMES) if (drawn.close[:50, column] > 100).any()}
    traded = set(result.by_symbol.index.get_level_values("instrument"))
    assert traded
    assert traded <= allowed


def test_carry_earns_the_funding_that_it_expects(drawn):
    assert perps.backtest(perps.FundingCarry(topk=4), bar(1), freq="60min").ledger["funding"].sum() > 0


@pytest.mark.parametrize("kind", ["signal", "carry", "pairs"])
def test_nothing_that_happens_later_changes_what_was_done_before(drawn, tmp_path, kind):
    """Another market from bar T on: all that was done up to then is the same to the bit."""
    other = draw(seed=6)
    cut = 300
    mixed = {
        name: np.vstack([getattr(drawn, name)[:cut], getattr(other, name)[cut:]]) for name in drawn.__dataclass_fields__
    }
    changed = replace(drawn, **mixed)

    def amounts(market):
        strategy = {
            "signal": lambda: perps.LongShortTopK(topk=4, n_drop=1, signal=market.predictions()),
            "carry": lambda: perps.FundingCarry(topk=4),
            "pairs": lambda: perps.FundingPairs(topk=4),
        }[kind]()
        result = perps.backtest(strategy, bar(1), bar(cut + 20), freq="60min")
        traded = result.by_symbol["turnover"].loc[: pd.Timestamp(bar(cut - 1))]
        # What is ordered at the open of bar T is decided before it, at prices of before: so is what is held then.
        after = {n: result.positions[pd.Timestamp(bar(cut + n))].get_stock_amount_dict() for n in (0, 10)}
        return traded, result.ledger["equity"].loc[: pd.Timestamp(bar(cut - 1))], after

    before = amounts(drawn)
    write_provider(tmp_path / "qlib_data", "60min", changed.symbols(), BARS)
    perps.init(tmp_path / "qlib_data", experiments=tmp_path)
    now = amounts(changed)
    pd.testing.assert_series_equal(before[0], now[0], check_exact=True)
    pd.testing.assert_series_equal(before[1], now[1], check_exact=True)
    assert before[2][0] == now[2][0]
    assert before[2][10] != now[2][10]


def test_the_first_bar_of_a_calendar_has_no_signal_before_it(drawn):
    strategy = perps.LongShortTopK(topk=2, signal=drawn.predictions())
    for kind in (strategy, perps.FundingCarry(topk=2)):
        ledger = perps.backtest(kind, bar(0), bar(2), freq="60min").ledger
        assert ledger["turnover"].iloc[0] == 0
        assert ledger["turnover"].iloc[1] > 0


def test_positions_within_the_tolerance_are_left_alone(drawn):
    turnover = {}
    for tolerance in (0.0, 0.1):
        strategy = perps.LongShortTopK(topk=4, n_drop=1, tolerance=tolerance, signal=drawn.predictions())
        result = perps.backtest(strategy, bar(1), bar(200), freq="60min")
        turnover[tolerance] = len(result.by_symbol.query("turnover > 0"))
    assert turnover[0.1] < turnover[0.0]


def test_n_drop_limits_how_many_symbols_change_a_bar(drawn):
    strategy = perps.LongShortTopK(topk=4, n_drop=1, signal=drawn.predictions())
    result = perps.backtest(strategy, bar(1), bar(400), freq="60min")
    sides = [
        {sign: {s for s, amount in p.get_stock_amount_dict().items() if amount * sign > 0} for sign in (1, -1)}
        for p in result.positions.values()
    ]
    assert all(len(side[sign]) == 4 for side in sides for sign in (1, -1))
    replaced = [len(now[sign] - before[sign]) for before, now in pairwise(sides) for sign in (1, -1)]
    assert max(replaced) == 1
