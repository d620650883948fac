"""Every kind of fault strikes the running system, one after the other: it is seen, it heals, and nothing is lost.

docs/faults.md is the table of them; `make faults` runs this and writes down there how long each took to heal.
A few rows of every kind are a sample, which `make test` runs, too.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cli.stack import Stack, free_port
from proofs.judges.stored import read_refused
from proofs.rig.small_disk import NoSmallDiskError, SmallDisk
from services.simulator.faults.bulk import FLOOD_ROWS
from shared.exchanges.okx.names import inst_id_of
from shared.grid import DAY, MINUTE, floor_minute, to_ms
from tests.support.builders import wait_for, wait_until_none
from tests.support.running import MARKET, SYMBOLS, Running, note_healed

pytestmark = [pytest.mark.proof, pytest.mark.invariant(7), pytest.mark.invariant(11)]

_SECOND = {"clock": "wall"}
_BTC, _ETH, _SOL = "BTC-USDT-SWAP", "ETH-USDT-SWAP", "SOL-USDT-SWAP"
_DEAF = "XRP_USDT"
"""Its subscription is deaf from the start on, and found to be so 95 s later."""
_DISK_BYTES = 1 << 30
_CLOCK_SECONDS = 60
"""A service that got no time asks again after 20 s at most, and beats every 5 s."""


class Scene(Running):
    """The one stack of this module, with its metrics and with what the exchange did to it."""

    begin: datetime
    """The first minute from which nothing may lack."""

    def metric(self, name: str, **labels: str) -> float:
        """Return a counter of the collector, summed over what is not said."""
        port = self.stack.settings["COLLECTOR_METRICS_PORT"]
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        samples = [sample for family in families for sample in family.samples if sample.name == f"qlib_crypto_{name}"]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    def letters(self) -> int:
        """Return how many inputs were set aside so far."""
        return int(self.stack.ask_api("/dead-letters")["total"])

    def healed(self) -> int:
        """Return how many minutes came over REST so far."""
        return sum(self.ledger(symbol, self.begin, self.now())["healed"] for symbol in self.symbols)

    def happened(self) -> list[dict[str, Any]]:
        """Return what the exchange's faults did so far."""
        return list(self.stack.ask_simulator("/sim/faults"))

    def strike(self, faults: list[dict[str, Any]]) -> None:
        """Let faults happen, and return when they are over."""
        before, began = len(self.happened()), time.monotonic()
        self.stack.tell_simulator("/sim/faults", faults)
        for kind in {fault["kind"] for fault in faults}:
            own = [fault for fault in faults if fault["kind"] == kind]
            often = sum(fault.get("count", 1) for fault in own)
            wait_for(lambda: sum(one["kind"] == kind for one in self.happened()[before:]) >= often, 30)  # noqa: B023
        over = began + max(fault.get("duration", 0) for fault in faults)
        wait_for(lambda: time.monotonic() >= over, 60)

    def until_healed(self, row: str, *, since: float | None = None, seconds: float = 60) -> None:
        """Wait until everything up to the minute that is forming now is on disk as it was; note how long it took."""
        began = time.monotonic() if since is None else since
        self.until_whole(self.begin, seconds, floor_minute(self.now()) + MINUTE)
        note_healed(row, time.monotonic() - began)

    def absent(self) -> int:
        """Return of how many minutes the ledger says that the exchange does not have them."""
        return sum(self.ledger(symbol, self.begin, self.now() + DAY)["absent"] for symbol in self.symbols)

    def rank_once(self) -> subprocess.CompletedProcess[str]:
        """Rank once more, beside the ranker that runs."""
        return subprocess.run(
            [sys.executable, "-m", "services.ranker", "--once"],
            cwd=self.stack.directory,
            env=self.stack.env,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def says(self, service: str, words: str) -> bool:
        """Return whether /status says something of a service."""
        return words in self.service(service)["reason"]


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """Give a disk of a fixed size, None where there is none to be had."""
    disk = SmallDisk(tmp_path_factory.mktemp("disk"), _DISK_BYTES)
    try:
        disk.mount()
    except NoSmallDiskError:
        yield None
        return
    yield disk
    subprocess.run(["umount", disk.path], check=True)


@pytest.fixture(scope="module")
def scene(tmp_path_factory, disk):
    settings = {
        "TOP_N": "all",
        "BACKFILL_DAYS": "0",
        "FLUSH_SECONDS": "1",
        "COMPACT_EVERY": "0.1",
        "AUDIT_PAGES_PER_HOUR": "0",
        "RANK_EVERY_HOURS": "24",  # a ranking is made where a test wants one
        "COLLECTOR_METRICS_PORT": str(free_port()),
    }
    if disk is not None:
        settings |= {"DATA_DIR": str(disk.path / "okx_data"), "QLIB_DIR": str(disk.path / "qlib_data")}
    folder = tmp_path_factory.mktemp("stack")
    (folder / "faults.json").write_text(json.dumps([{"kind": "deaf", "instId": inst_id_of(_DEAF), "path": "business"}]))
    market = [*MARKET, "--faults", str(folder / "faults.json")]
    with Stack(folder / "run", settings, simulator=market) as stack:
        scene = Scene(stack)
        wait_for(lambda: _members(stack), 30)
        scene.symbols = [symbol for symbol in _members(stack) if symbol != _DEAF]
        scene.begin = scene.until_live()
        yield scene


def _members(stack: Stack) -> list[str]:
    """Return all members of the universe: one more than the four that are linear."""
    with suppress(OSError):  # before the first ranking
        return [member["symbol"] for member in stack.ask_api("/universe")["members"]]
    return []


class Case(NamedTuple):
    """Faults that strike together, and what must be seen of them."""

    faults: list[dict[str, Any]]
    healed: int = 0
    """Minutes, at least, that come over REST instead."""
    letters: tuple[int, ...] = (0,)
    """Inputs that are set aside. A forming row of the future is none: only closed ones are looked at."""
    grows: tuple[tuple[str, dict[str, str], int], ...] = ()
    """Counters of the collector: name, labels, by how much at least."""


def _each(kind: str, *inst_ids: str, **more: Any) -> list[dict[str, Any]]:
    """Return the same fault for some instruments, each of which is live."""
    return [{"kind": kind, "instId": inst_id, "count": 1, **more} for inst_id in inst_ids]


_LOSE = _each("lost_confirm", _BTC, _ETH)
"""Makes the collector ask over REST."""
_RECENT = {"endpoint": "market/candles", "instId": _BTC}
_ASKED = {"endpoint": "/api/v5/market/candles"}
_WRONG = ("high_low", "negative", "off_grid", "future")

PUSHES = {
    "nothing": Case([{"kind": "duplicate_confirm", "instId": _BTC}]),
    "lost_confirm": Case(_each("lost_confirm", _BTC, _ETH, _SOL), healed=3),
    "late_confirm": Case(_each("late_confirm", _BTC, _ETH, _SOL, delay=150), healed=3),
    "duplicate_confirm": Case(_each("duplicate_confirm", _BTC, _ETH, _SOL)),
    "out_of_order": Case(
        [*_each("out_of_order", _BTC, _ETH, variant="forming"), *_each("out_of_order", _BTC, _SOL, variant="swapped")]
    ),
    "old_row": Case([*_each("old_row", _BTC, _ETH, variant="forming"), *_each("old_row", _BTC, variant="confirm")]),
    "garbage": Case(
        [
            *_each("garbage", _BTC, variant="text", path="business"),
            *_each("garbage", _BTC, variant="truncated", path="business"),
            *_each("garbage", _BTC, variant="empty_rate", path="public"),
        ],
        letters=(3,),
    ),
    "impossible": Case(
        [fault for variant in _WRONG for fault in _each("impossible", _BTC, variant=variant)], letters=(3, 4)
    ),
    "odd_value": Case(
        [
            *_each("odd_value", _BTC, push="confirm", variant="inserted", field=4, value="n/a"),
            *_each("odd_value", _ETH, push="confirm", value=[5]),
            *_each("odd_value", _SOL, push="confirm", value=None),
            *_each("odd_value", _BTC, push="funding", field="nextFundingTime"),
            *_each("odd_value", _ETH, push="funding", field="nextFundingRate", value=None),
            *_each("odd_value", _SOL, push="funding", field="fundingTime", value="17898336000000000"),
        ],
        healed=2,
        letters=(4,),
    ),
    "two_rows": Case(
        [*_each("two_rows", _BTC, variant="closed_last"), *_each("two_rows", _ETH, variant="closed_first")]
    ),
    "flood": Case(_each("flood", _BTC, push="confirm", size=20_000), letters=(FLOOD_ROWS,)),
    "unknown_fields": Case(
        [
            {"kind": "unknown_fields", "count": 20},
            {"kind": "unknown_fields", "where": "rest", "count": 1, **_RECENT},
            *_LOSE,
        ],
        healed=2,
    ),
    "silence": Case([{"kind": "silence", "duration": 4, **_SECOND}], healed=2 * len(SYMBOLS)),
}

ANSWERS = {
    "impossible rest": Case(
        [*_LOSE, *({"kind": "impossible", "variant": variant, "where": "rest", **_RECENT} for variant in _WRONG)],
        healed=2,
        letters=(4,),
    ),
    "odd_value rest": Case(
        [
            *_LOSE,
            {"kind": "odd_value", "where": "rest", "variant": "inserted", "field": 1, "value": "1e39", **_RECENT},
            {"kind": "odd_value", "where": "rest", "variant": "inserted", "value": [5], **_RECENT},
        ],
        healed=2,
        letters=(2,),
    ),
    "flood rest": Case(
        [*_LOSE, {"kind": "flood", "where": "rest", "size": 20_000, **_RECENT}], healed=2, letters=(FLOOD_ROWS,)
    ),
    "huge_answer": Case(
        [*_LOSE, *({"kind": "huge_answer", "variant": variant, **_RECENT} for variant in ("plain", "packed"))], healed=2
    ),
    "redirect": Case([*_LOSE, {"kind": "redirect", **_RECENT}], healed=2),
    "stuck_cursor": Case([*_LOSE, {"kind": "stuck_cursor", **_RECENT}], healed=2),
    "odd_candle": Case(
        [{"kind": "odd_candle", "variant": "zero", "instId": _BTC, "duration": 4, **_SECOND}],
        healed=1,
        letters=tuple(range(1, 9)),
    ),
    "late_minute": Case([{"kind": "late_minute", "instId": _BTC, "duration": 4, **_SECOND}], healed=1),
    "http_error": Case(
        [
            *_LOSE,
            {"kind": "http_error", "status": 503, "count": 2, **_RECENT},
            {"kind": "http_error", "status": 502, "html": True, "count": 2, **_RECENT},
        ],
        healed=2,
        grows=(("rest_requests_total", _ASKED | {"outcome": "50001"}, 4),),
    ),
    "rate_limit": Case(
        [*_LOSE, {"kind": "rate_limit", "count": 2, **_RECENT}],
        healed=2,
        grows=(("rest_requests_total", _ASKED | {"outcome": "50011"}, 2),),
    ),
    "slow": Case([*_LOSE, {"kind": "slow", "delay": 3, "count": 1, **_SECOND, **_RECENT}], healed=2),
    "timeout": Case(
        [*_LOSE, {"kind": "timeout", "count": 1, **_RECENT}],
        healed=2,
        grows=(("rest_requests_total", _ASKED | {"outcome": "unreachable"}, 1),),
    ),
    "empty": Case(
        [
            *_LOSE,
            {"kind": "empty", "variant": "page", "count": 2, **_RECENT},
            {"kind": "empty", "variant": "holes", "count": 2, **_RECENT},
        ],
        healed=2,
        grows=(("collector_pages_total", {"endpoint": "recent"}, 4),),
    ),
    "unknown": Case(
        [*_LOSE, {"kind": "unknown", "count": 3, **_RECENT}],
        healed=2,
        grows=(("rest_requests_total", _ASKED | {"outcome": "51001"}, 3),),
    ),
}

_CANDLES = {"channel": "candles"}

CONNECTIONS = {
    "drop": Case(
        [{"kind": "drop", "path": path, "count": 1} for path in ("business", "public")],
        grows=(("collector_connects_total", _CANDLES, 1),),
    ),
    "close": Case(
        [{"kind": "close", "path": path, "count": 1} for path in ("business", "public")],
        grows=(("collector_connects_total", _CANDLES, 1),),
    ),
    "notice": Case(
        [{"kind": "notice", "path": path, "count": 1} for path in ("business", "public")],
        grows=(("collector_replaced_total", _CANDLES, 1),),
    ),
    "slow_socket": Case(
        [{"kind": "slow_socket", "path": "business", "delay": 2, "duration": 4, **_SECOND}], healed=len(SYMBOLS)
    ),
    "huge_frame": Case(
        [{"kind": "huge_frame", "path": "business", "count": 1}], grows=(("collector_connects_total", _CANDLES, 1),)
    ),
    "maintenance elsewhere": Case(
        [{"kind": "maintenance", "variant": "elsewhere", "duration": 4, "delay": 0, **_SECOND}]
    ),
    "maintenance blind": Case(
        [{"kind": "maintenance", "duration": 4, "delay": 1, **_SECOND}],
        healed=len(SYMBOLS),
        grows=(("collector_connects_total", _CANDLES, 1),),
    ),
}


_SAMPLE = {"nothing", "lost_confirm", "garbage", "flood rest", "http_error", "drop", "writer", "collector"}


def _rows(names: Iterable[str]) -> list[Any]:
    """Return rows as parameters, those of the sample marked."""
    return [pytest.param(name, marks=[pytest.mark.sample] if name in _SAMPLE else []) for name in names]


def _strike_and_see(scene: Scene, row: str, case: Case) -> None:
    """Let a case happen; see of it what must be seen, nobody die, and everything heal."""
    pids, healed, letters = scene.pids(), scene.healed(), scene.letters()
    counted = [scene.metric(name, **labels) for name, labels, _ in case.grows]

    scene.strike(case.faults)
    scene.until_healed(row)

    assert scene.pids() == pids
    wait_for(lambda: scene.letters() - letters in case.letters, 5)
    wait_for(lambda: scene.healed() - healed >= case.healed, 5)
    for (name, labels, least), before in zip(case.grows, counted, strict=True):
        wait_for(lambda: scene.metric(name, **labels) - before >= least, 5)  # noqa: B023


@pytest.mark.parametrize("row", _rows(PUSHES))
def test_what_is_pushed_wrongly_is_seen_and_heals(scene, row):
    _strike_and_see(scene, row, PUSHES[row])


def test_a_deaf_subscription_is_found_and_renewed_and_loses_nothing(scene):
    """It was deaf from the start of the stack on: acknowledged, and never a row. Every minute came over REST."""
    struck = next(one for one in scene.happened() if one["kind"] == "deaf")
    wait_for(lambda: scene.metric("collector_renewals_total", channel="candles", reason="silent") == 1, 120)
    note_healed("deaf", time.time() - datetime.fromisoformat(struck["wall"]).timestamp())

    scene.symbols = [*scene.symbols, _DEAF]
    scene.until_whole(scene.begin)
    assert scene.ledger(_DEAF, scene.begin, scene.now())["healed"] > 60
    assert scene.metric("collector_connects_total", channel="candles") == 1


@pytest.mark.parametrize("row", _rows(ANSWERS))
def test_what_is_answered_wrongly_is_seen_and_heals(scene, row):
    _strike_and_see(scene, row, ANSWERS[row])


def test_funding_rows_that_are_nearly_empty_are_read_all_the_same(scene):
    """The ranker asks for all of them at once."""
    letters = scene.letters()
    where = {"where": "rest", "endpoint": "public/funding-rate"}
    scene.stack.tell_simulator("/sim/faults", [{"kind": "empty_fields", **where}])
    ranked = scene.rank_once()

    scene.strike([{"kind": "empty_fields", "path": "public", "count": 3}])
    scene.until_healed("empty_fields")

    assert ranked.returncode == 0, ranked.stderr
    assert len([one for one in scene.happened() if one["kind"] == "empty_fields"]) == 4
    assert set(_members(scene.stack)) == {*scene.symbols, _DEAF}
    assert scene.letters() == letters


def test_an_exchange_that_does_not_give_its_time_is_said_and_the_clock_goes_on(scene):
    pids = scene.pids()
    scene.stack.tell_simulator("/sim/faults", [{"kind": "time_error", "duration": 10, **_SECOND}])
    wait_for(lambda: scene.says("collector", "the exchange does not report its time"), 15)
    wait_for(lambda: not scene.says("collector", "the exchange does not report its time"), 20)
    scene.until_healed("time_error")

    assert scene.pids() == pids


def test_a_time_that_is_none_is_said_and_the_clock_goes_on(scene):
    pids = scene.pids()
    scene.stack.tell_simulator("/sim/faults", [{"kind": "odd_time", "variant": "blank", "duration": 20, **_SECOND}])
    wait_for(lambda: scene.says("collector", "the exchange does not report its time"), 25)
    wait_for(lambda: not scene.says("collector", "the exchange does not report its time"), _CLOCK_SECONDS)
    scene.until_healed("odd_time none")

    assert scene.pids() == pids


def test_a_time_that_jumps_is_said_and_nothing_of_the_future_is_judged(scene):
    pids = scene.pids()
    jump = {"kind": "odd_time", "variant": "jump", "seconds": 6 * 3600, "duration": 20, **_SECOND}
    scene.stack.tell_simulator("/sim/faults", [jump])
    wait_for(lambda: scene.says("collector", "clock has jumped by +21,600 s"), 25)
    wait_for(lambda: not scene.says("collector", "clock has jumped"), _CLOCK_SECONDS)
    scene.until_healed("odd_time jump")

    assert scene.pids() == pids
    assert scene.absent() == 0
    future = scene.now() + 5 * MINUTE
    assert not any(scene.ledger(symbol, future, future + DAY)["wanted"] for symbol in scene.symbols)


_INSTRUMENTS, _RATES = {"endpoint": "public/instruments"}, {"endpoint": "public/funding-rate"}
_THIN = {
    "empty": {"variant": "empty"},
    "truncated": {"variant": "truncated", "share": 0.1},
    "lacks": {"variant": "lacks", "row": _BTC},
    "doubled": {"variant": "doubled", "row": _BTC},
}
"""Ways in which a list is not whole."""


@pytest.mark.parametrize("variant", _THIN)
def test_a_ranking_asks_again_for_lists_that_are_not_whole(scene, variant):
    members = sorted(_members(scene.stack))
    thin = [{"kind": "thin_list", "count": 2, **_THIN[variant], **where} for where in (_INSTRUMENTS, _RATES)]
    scene.stack.tell_simulator("/sim/faults", thin)
    ranked = scene.rank_once()

    assert ranked.returncode == 0, ranked.stderr
    wait_for(lambda: scene.stack.ask_simulator("/sim/faults")[-1]["kind"] == "thin_list")
    assert sorted(_members(scene.stack)) == members


def test_a_ranking_of_lists_that_stay_thin_fails_and_the_last_universe_stays(scene):
    """Four lists: the first one confirms the clock, the others are the ranking's three looks."""
    members = sorted(_members(scene.stack))
    scene.stack.tell_simulator("/sim/faults", [{"kind": "thin_list", "count": 4, **_THIN["truncated"], **_RATES}])
    ranked = scene.rank_once()

    assert ranked.returncode == 1
    assert "less than half" in ranked.stdout + ranked.stderr
    assert sorted(_members(scene.stack)) == members


def test_a_list_of_instruments_that_is_not_whole_is_said_and_ends_nothing(scene):
    """The collector looks at it once a minute, and four times a minute while it is in doubt."""
    pids = scene.pids()
    not_believed = "the exchange's list of instruments holds"
    in_doubt = "not in the exchange's list of instruments, waiting for more evidence"
    seen = {
        "empty": lambda: scene.says("collector", not_believed),
        "truncated": lambda: scene.says("collector", not_believed),
        "lacks": lambda: in_doubt in scene.service("collector")["details"]["instruments"].get("BTC_USDT", ""),
        "doubled": lambda: not scene.says("collector", not_believed),
    }
    for variant, is_seen in seen.items():
        before = len(scene.happened())
        scene.stack.tell_simulator("/sim/faults", [{"kind": "thin_list", **_THIN[variant], **_INSTRUMENTS}])
        wait_for(lambda: any(one["kind"] == "thin_list" for one in scene.happened()[before:]), 80)  # noqa: B023
        wait_for(is_seen, 12)
    wait_for(lambda: scene.service("collector")["verdict"] == "ok", 30)
    wait_for(lambda: "BTC_USDT" not in scene.service("collector")["details"]["instruments"], 30)
    scene.until_healed("thin_list")

    assert scene.pids() == pids


def test_a_minute_that_is_impossible_for_good_is_refused_and_said(scene):
    """It is not absent: the exchange shows a row of it, which cannot be true."""
    pids, letters = scene.pids(), scene.letters()
    began = time.monotonic()
    scene.stack.tell_simulator("/sim/faults", [{"kind": "odd_candle", "variant": "zero", "instId": _SOL}])
    wait_for(lambda: scene.ledger("SOL_USDT", scene.begin, scene.now())["refused"] == 1, 90)
    scene.until_healed("odd_candle for good", since=began)

    assert scene.pids() == pids
    assert scene.absent() == 0
    assert scene.letters() - letters in {1, 2}  # the row as it was pushed, and as it is in a page
    wait_for(lambda: scene.service("collector")["details"]["refused_minutes"] == {"SOL_USDT": 1}, 15)
    assert [gap["symbol"] for gap in scene.stack.ask_api("/gaps?verdict=refused")["gaps"]] == ["SOL_USDT"]


@pytest.mark.parametrize("row", _rows(CONNECTIONS))
def test_what_happens_to_connections_is_seen_and_heals(scene, row):
    _strike_and_see(scene, row, CONNECTIONS[row])


def test_a_refused_connection_is_said_and_tried_again(scene):
    wait_for(lambda: not scene.says("collector", "not connected"), 30)  # what is left of the fault before
    pids, healed, before = scene.pids(), scene.healed(), len(scene.happened())

    def happened(kind):
        return [one for one in scene.happened()[before:] if one["kind"] == kind]

    scene.stack.tell_simulator(
        "/sim/faults",
        [
            {"kind": "refuse", "variant": "http", "count": 2},
            {"kind": "refuse", "variant": "tcp", "duration": 8, **_SECOND},
            {"kind": "drop", "path": "business", "count": 1},
        ],
    )
    wait_for(lambda: happened("drop"), 15)
    wait_for(lambda: scene.says("collector", "candles: not connected to the exchange"), 15)
    wait_for(lambda: {one["variant"] for one in happened("refuse")} == {"http", "tcp"}, 60)
    wait_for(lambda: scene.stack.ask_simulator("/sim/stats")["connections_now"].get("business"), 30)
    scene.until_healed("refuse")

    assert scene.pids() == pids
    assert scene.healed() - healed >= 5 * len(scene.symbols)


@pytest.fixture(scope="module")
def damaged_ledger(scene):
    """Damage a file of the ledger; the next look at the disk is up to a minute away."""
    victim = next((scene.stack.data_dir / "ledger").rglob("[!.]*.parquet"))
    aside = victim.with_name(".cut")
    aside.write_bytes(victim.read_bytes()[:200])
    aside.replace(victim)
    return victim, time.time()


def test_a_subscription_that_is_rejected_or_not_acknowledged_is_said_and_sent_again(scene, damaged_ledger):
    """Its neighbours keep theirs, and its minutes come over REST meanwhile."""
    pids = scene.pids()
    renewals = {
        row: lambda reason=reason: scene.metric("collector_renewals_total", channel="candles", reason=reason)
        for row, reason in (("reject", "rejected"), ("lost_ack silent", "unacknowledged"))
    }
    before = {row: count() for row, count in renewals.items()}
    rejected = scene.metric("collector_rejected_total", channel="candles", code="60018")
    on_candles = {"path": "business"}
    struck = time.monotonic()
    scene.strike(
        [
            {"kind": "reject", "instId": _BTC, **on_candles},
            {"kind": "lost_ack", "variant": "silent", "instId": _ETH, **on_candles},
            {"kind": "lost_ack", "variant": "data", "instId": _SOL, **on_candles},
            {"kind": "drop", "count": 1, **on_candles},
        ]
    )
    scene.until_healed("lost_ack data")
    wait_for(lambda: scene.service("collector")["details"]["candles"]["rejected"] == {"BTC_USDT": "60018"}, 10)
    assert scene.says("collector", "the exchange rejects BTC_USDT, asking again")
    assert scene.metric("collector_rejected_total", channel="candles", code="60018") == rejected + 1
    for row in ("lost_ack silent", "reject"):
        wait_for(lambda: renewals[row]() > before[row], 60)  # noqa: B023
        note_healed(row, time.monotonic() - struck)
    wait_for(lambda: scene.service("collector")["verdict"] == "ok", 20)
    scene.until_whole(scene.begin)

    assert scene.pids() == pids
    for symbol, seconds in (("BTC_USDT", 15), ("ETH_USDT", 8)):  # as many minutes as it was without live data
        assert scene.ledger(symbol, scene.begin, scene.now())["healed"] >= seconds


def test_a_damaged_ledger_is_put_aside_and_rebuilt_from_the_data(scene, damaged_ledger):
    """What was wanted is published again by the collector."""
    victim, damaged = damaged_ledger
    aside = wait_for(lambda: next((scene.stack.data_dir / "_damaged" / "ledger").rglob("*.damaged.txt"), None), 90)
    wait_for(victim.exists)
    scene.until_whole(scene.begin)
    note_healed("ledger damaged", aside.stat().st_mtime - damaged)

    assert aside.read_text().strip()


# --- Faults of our own side


def _revived(scene, names, pids):
    """Return whether other processes have taken the place of some services, and beat."""
    now = scene.pids()
    return all(
        now[name] and now[name] != pids[name] and scene.service(name)["pid"] not in {None, pids[name]} for name in names
    )


@pytest.mark.parametrize("service", _rows(["writer", "collector", "ranker", "converter", "api"]))
def test_a_killed_service_comes_back_and_takes_up_where_it_was(scene, service):
    pids = scene.pids()
    scene.stack.kill(service)
    began = time.monotonic()
    wait_for(lambda: _answers(scene) and _revived(scene, [service] if service != "api" else [], pids), 30)
    scene.until_healed(f"kill {service}", since=began)

    now = scene.pids()
    assert now.pop(service) != pids.pop(service)
    assert now == pids


def _answers(scene):
    with suppress(OSError):
        return scene.stack.ask_api("/health")["status"] == "ok"
    return False


@pytest.mark.sample
def test_a_killed_redis_comes_back_with_what_it_had(scene):
    pids = scene.pids()
    scene.stack.kill("valkey")
    began = time.monotonic()
    wait_for(scene.redis_answers)
    scene.until_healed("redis killed", since=began)

    assert scene.pids() == pids


def test_services_that_are_stopped_for_a_while_go_on_where_they_were(scene):
    """SIGSTOP: a laptop that sleeps, a machine without a free core."""
    pids = scene.pids()
    for service in pids:
        scene.stack.kill(service, signal.SIGSTOP)
    began = time.monotonic()
    wait_for(lambda: time.monotonic() - began > 8)
    for service in pids:
        scene.stack.kill(service, signal.SIGCONT)
    scene.until_healed("stopped")

    assert scene.pids() == pids


def test_a_full_disk_is_said_and_waited_out_and_nothing_is_lost(scene, disk):
    if disk is None:
        pytest.skip("no disk of a fixed size can be mounted here: that needs root and a loop device or a tmpfs")
    pids = scene.pids()
    disk.fill()
    try:
        wait_for(lambda: scene.says("writer", "No space left on device"), 20)
    finally:
        disk.free()
    scene.until_healed("disk full")

    assert scene.pids() == pids


def test_what_the_exchange_corrects_later_is_found_and_mended_by_the_audit(scene):
    """A correction is not announced: only whoever asks again sees it."""
    rate = scene.stack.ask_simulator("/sim/clock")["speed"]
    old = (10 + rate + 5) * MINUTE
    wait_for(lambda: scene.now() - scene.begin > old + 5 * MINUTE, 90)
    scene.strike([{"kind": "corrected", "instId": _ETH, "delay": old.total_seconds()}])
    began = time.monotonic()
    wrong = scene.problems(scene.begin, floor_minute(scene.now()) - 2 * MINUTE)
    assert wrong["ETH_USDT"][0]["wrong"] == 1

    audit = subprocess.run(
        [sys.executable, "-m", "services.writer.audit", "--repair", "--symbols", "ETH_USDT"],
        cwd=scene.stack.directory,
        env=scene.stack.env,
        capture_output=True,
        text=True,
        check=False,
    )
    scene.until_healed("corrected", since=began)

    assert audit.returncode == 1, audit.stdout + audit.stderr
    assert "1 repairs published" in audit.stdout


@pytest.mark.sample
def test_in_the_end_the_ledger_accounts_for_every_minute(scene):
    """Invariant 7: every one is wanted and stored, or refused for good; none is missing, absent or halted."""
    end = floor_minute(scene.now()) - MINUTE
    minutes = (end - scene.begin) // MINUTE
    refused = {
        symbol: len(read_refused(scene.stack.ask_simulator, symbol, to_ms(scene.begin), to_ms(end)))
        for symbol in scene.symbols
    }

    def differing():
        """Return what the ledger has of the symbols that it does not account for, and what it should have."""
        found = {}
        for symbol in scene.symbols:
            known = scene.ledger(symbol, scene.begin, end)
            has = known["wanted"], known["received"] + known["healed"], known["refused"], known["missing"]
            should = minutes, minutes - refused[symbol], refused[symbol], 0
            if has != should:
                found[symbol] = {"has": has, "should": should}
        return found

    wait_until_none(differing, "wanted, stored, refused, missing", 60)
    assert not scene.problems(scene.begin, end)
    for symbol in scene.symbols:
        known = scene.ledger(symbol, scene.begin, end)
        assert not known["absent"]
        assert not known["halted"]
        assert known["due"] == known["settled"]
