"""What becomes of instruments while the system runs, and an exchange that stands still: one market morning.

Everything happens on one stack, at its time; the tests look at it afterwards. docs/faults.md has a row for each.
"""

import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cli.stack import Stack, free_port
from services.converter.convert import convert
from shared.grid import MINUTE, to_ms
from tests.support.patience import Deadline
from tests.support.running import Running, note_healed

pytestmark = [pytest.mark.proof, pytest.mark.invariant(7), pytest.mark.timeout(900)]

SPEED = 60
DEADLINE_SECONDS = 240


def _at(hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 3, 1, hour, minute, tzinfo=UTC)


START, BEGIN = _at(7, 20), datetime(2026, 2, 28, tzinfo=UTC)
ANNOUNCED, LISTED = _at(7, 42), _at(7, 50)
SUSPENDED, RESUMED = _at(7, 50), _at(8, 10)
TICK, DELISTED = _at(7, 55), _at(7, 52)
HALTED, TRADED = _at(8, 20), _at(8, 48)
RANKED, RANKED_AGAIN = _at(8), _at(9)
LOOKED = 2 * MINUTE
"""How long after a change the list has been looked at: at real speed that is done every minute."""

CHANGES = [
    {"kind": "list", "instId": "NEW-USDT-SWAP", "at": to_ms(LISTED), "announce": to_ms(ANNOUNCED)},
    {"kind": "suspend", "instId": "SOL-USDT-SWAP", "at": to_ms(SUSPENDED)},
    {"kind": "resume", "instId": "SOL-USDT-SWAP", "at": to_ms(RESUMED)},
    {"kind": "delist", "instId": "XRP-USDT-SWAP", "at": to_ms(DELISTED), "announce": to_ms(ANNOUNCED)},
    {"kind": "tick", "instId": "ETH-USDT-SWAP", "at": to_ms(TICK), "announce": to_ms(ANNOUNCED), "tickSz": "0.1"},
    {"kind": "interval", "instId": "BTC-USDT-SWAP", "at": to_ms(ANNOUNCED), "hours": 1},
]
HALT = {
    "kind": "maintenance",
    "variant": "halt",
    "at": to_ms(HALTED),
    "duration": (TRADED - HALTED).total_seconds(),
    "delay": 60,
}
SYMBOLS = ("BTC_USDT", "ETH_USDT", "SOL_USDT", "NEW_USDT")


class Morning(Running):
    """The stack, and what of its morning has come to its end."""

    def stored_between(self, symbol: str, begin: datetime, end: datetime) -> int:
        """Return how many minutes the ledger has."""
        known = self.ledger(symbol, begin, end)
        return known["received"] + known["healed"]

    def changes(self, what: str) -> float:
        """Return how many changes of instruments the collector has counted."""
        with urlopen(f"http://127.0.0.1:{self.stack.settings['COLLECTOR_METRICS_PORT']}/metrics", timeout=5) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        name = "qlib_crypto_collector_instrument_changes_total"
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return sum(sample.value for sample in samples if sample.labels["what"] == what)

    def subscribed(self, symbol: str) -> dict[str, bool]:
        """Return of each channel whether the collector complains of an instrument or expects it to be silent."""
        details = self.service("collector")["details"]
        complaints = ("rejected", "unacknowledged", "silent", "expected_silent")
        return {name: any(symbol in details[name][what] for what in complaints) for name in ("candles", "funding")}

    def halted(self, symbol: str, begin: datetime, end: datetime) -> bool:
        """Return whether the ledger says of every minute that nothing was traded in it."""
        return self.ledger(symbol, begin, end)["halted"] == (end - begin) // MINUTE

    def is_settled(self, symbol: str, at: datetime) -> bool:
        """Return whether the rate of an instant is stored."""
        return self.ledger(symbol, at, at + MINUTE)["settled"] == 1

    def missing(self, symbol: str, end: datetime) -> int:
        """Return how many minutes lack a verdict."""
        return self.ledger(symbol, BEGIN, end)["missing"]


def _outcomes(morning):
    """Return the rows: from when their time counts, and when they have healed."""
    return {
        "list": (RANKED, lambda now: now > RANKED and morning.stored_between("NEW_USDT", LISTED, RANKED) == 10),
        "suspend": (RESUMED, lambda now: now > RESUMED and morning.halted("SOL_USDT", SUSPENDED, RESUMED)),
        "delist": (DELISTED, lambda now: now > RANKED + LOOKED and morning.missing("XRP_USDT", now) == 0),
        "tick": (TICK, lambda _: morning.changes("tick size") >= 1),
        "interval": (RANKED_AGAIN, lambda now: now > RANKED_AGAIN and morning.is_settled("BTC_USDT", RANKED_AGAIN)),
        "maintenance halt": (
            TRADED,
            lambda now: now > TRADED and all(morning.halted(name, HALTED, TRADED) for name in ("BTC_USDT", "NEW_USDT")),
        ),
    }


def _rank(stack):
    """Rank once more: the collector looks at the list of instruments with every ranking."""
    subprocess.run([sys.executable, "-m", "services.ranker", "--once"], cwd=stack.directory, env=stack.env, check=True)


@pytest.fixture(scope="module")
def morning(tmp_path_factory):
    """Run the market's morning until all of it is over, and settled."""
    folder = tmp_path_factory.mktemp("stack")
    (folder / "changes.json").write_text(json.dumps(CHANGES))
    (folder / "faults.json").write_text(json.dumps([HALT]))
    market = ["--symbols", "4", "--seed", "7", "--start", START.isoformat(), "--speed", str(SPEED)]
    market += ["--events", str(folder / "changes.json"), "--faults", str(folder / "faults.json")]
    settings = {
        "TOP_N": "all",
        "BACKFILL_DAYS": "1",
        "RANK_EVERY_HOURS": "1",
        "FLUSH_SECONDS": "1",
        "COMPACT_EVERY": "0.1",
        "COLLECTOR_METRICS_PORT": str(free_port()),
    }
    with Stack(folder / "run", settings, simulator=market) as stack:
        morning = Morning(stack, SYMBOLS)
        morning.pids_before = morning.pids()
        morning.seen = {}
        """Row → exchange's seconds after its instant."""
        deadline = Deadline(DEADLINE_SECONDS)
        waiting = _outcomes(morning)
        looks = [RESUMED + LOOKED]
        while waiting and not deadline.has_passed:
            now = morning.now()
            if looks and now >= looks[0]:
                looks.pop()
                _rank(stack)
            for row, (since, holds) in list(waiting.items()):
                if now > _at(7, 40) and holds(now):
                    morning.seen[row] = (now - since).total_seconds()
                    note_healed(row, morning.seen[row] / SPEED)
                    del waiting[row]
            time.sleep(0.2)
        yield morning


def test_nobody_has_died_and_everything_is_stored_as_it_was(morning):
    morning.until_whole(BEGIN)

    assert morning.pids() == morning.pids_before


def test_a_listed_instrument_is_ranked_and_collected_from_its_first_minute_on(morning):
    """It was announced eight minutes earlier, as `preopen`."""
    assert "list" in morning.seen
    assert morning.changes("listed") == 1
    assert morning.ledger("NEW_USDT", BEGIN, LISTED)["wanted"] == 0
    known = morning.ledger("NEW_USDT", LISTED, RANKED_AGAIN)
    assert (known["wanted"], known["missing"], known["absent"]) == ((RANKED_AGAIN - LISTED) // MINUTE, 0, 0)


def test_the_minutes_of_a_suspension_are_halted_and_trading_is_taken_up_again(morning):
    assert "suspend" in morning.seen
    assert morning.changes("state") >= 2
    known = morning.ledger("SOL_USDT", SUSPENDED, RESUMED)
    assert (known["halted"], known["absent"], known["missing"]) == (20, 0, 0)
    assert morning.stored_between("SOL_USDT", RESUMED, HALTED) == 10


def test_of_a_delisted_instrument_nothing_is_missing_after_its_end(morning):
    """Its last minute closes after the exchange has forgotten it: nobody can ask for it any more."""
    assert "delist" in morning.seen
    assert morning.changes("delisted") == 1
    last = DELISTED - MINUTE
    assert morning.stored_between("XRP_USDT", BEGIN, last) == (last - BEGIN) // MINUTE
    after = morning.ledger("XRP_USDT", last, RANKED_AGAIN)
    assert (after["received"] + after["healed"], after["missing"]) == (0, 0)
    # Until its end was proven: a minute or two of ours, in which it was missing from the list and unknown to history.
    assert 1 <= after["wanted"] <= after["absent"] <= 3 * SPEED
    assert not any(morning.subscribed("XRP_USDT").values())


def test_what_the_exchange_said_of_its_instruments_is_stored_as_it_became_known(morning):
    state, ended = morning.said("XRP_USDT", "state", "end_time")[-1]
    assert state == "expired"
    assert DELISTED <= ended <= RANKED_AGAIN  # when it was first missing, where no look came upon the announcement
    assert morning.said("NEW_USDT", "state", "list_time")[-1] == ("live", LISTED)
    states = [state for (state,) in morning.said("SOL_USDT", "state")]  # two looks in a row, at sixty times the pace
    assert (states[0], states[-1], {*states} <= {"live", "suspend"}) == ("live", "live", True)
    assert morning.said("ETH_USDT", "tick_size")[-1] == (0.1,)
    assert morning.said("BTC_USDT", "settle_currency", "contract_type") == [("USDT", "linear")]


def test_a_dataset_knows_who_was_delisted_and_when(morning, tmp_path):
    """Whoever else has no later bar is merely not collected any more."""
    convert(morning.stack.data_dir, tmp_path / "qlib", until=None)

    ((_, ended),) = morning.said("XRP_USDT", "state", "end_time")[-1:]
    last = ended.replace(second=0, microsecond=0)
    last -= MINUTE if last == ended else timedelta(0)
    (row,) = (tmp_path / "qlib" / "instruments" / "delisted.txt").read_text().splitlines()
    assert row == f"XRP_USDT\t{BEGIN:%Y-%m-%d %H:%M:%S}\t{last:%Y-%m-%d %H:%M:%S}"


def test_another_tick_size_is_noted_and_changes_no_candle(morning):
    assert "tick" in morning.seen


def test_another_funding_interval_has_its_settlements_from_the_next_one_on(morning):
    assert "interval" in morning.seen
    assert morning.changes("funding interval") == 1
    assert morning.is_settled("BTC_USDT", RANKED)
    known = morning.ledger("BTC_USDT", BEGIN, RANKED_AGAIN + MINUTE)
    assert known["due"] == known["settled"] == 6  # at 0, 8, 16, 0, 8, and then at 9 h


def test_minutes_of_a_maintenance_in_which_nothing_was_traded_are_halted(morning):
    assert "maintenance halt" in morning.seen
    for symbol in ("BTC_USDT", "ETH_USDT", "SOL_USDT", "NEW_USDT"):
        known = morning.ledger(symbol, HALTED, TRADED)
        assert (known["halted"], known["absent"], known["missing"]) == (28, 0, 0)
