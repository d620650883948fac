"""A ranking for real: the simulator, a real Redis, the real process."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys

import pytest
import redis.asyncio as redis

from services.ranker.__main__ import Ranker, rank_once
from services.ranker.fetch import NothingToRankError, ThinListError
from services.ranker.history import KEPT, keep, kept
from services.ranker.settings import RankerSettings
from shared.bus.bus import Bus
from shared.clock import ExchangeClock
from shared.datasets.registry import decode
from shared.datasets.universe import Ranking
from shared.exchanges.base import Listing, Page
from shared.exchanges.okx.rest import OkxClient
from shared.grid import from_ms
from shared.runtime.service import Health, Service
from shared.runtime.settings import read_settings
from shared.storage.layout import rankings_file
from tests.support.builders import a_ranking, minute, until
from tests.support.patience import patience
from tests.support.simulator import ROOT, Simulator


class NoSwaps(OkxClient):
    """An exchange that answers, with nothing in it: to be distrusted."""

    async def instruments(self):
        return Listing({}, frozenset(), [])

    async def predictions(self, **_):
        return Page([])


@pytest.fixture(scope="module")
def exchange():
    with Simulator.start(symbols=12, seed=5, start="2025-06-10T12:00:30", speed=1) as running:
        yield running


@pytest.fixture
def settings(exchange, redis_url, tmp_path):
    return RankerSettings(
        _env_file=None,
        redis_url=redis_url,
        okx_rest_url=exchange.rest_url,
        okx_ca_file=exchange.ca_file,
        data_dir=tmp_path,
        top_n=5,
    )


@pytest.fixture
async def service(exchange, settings, bus):
    async with OkxClient(exchange.rest_url, ca_file=exchange.ca_file) as client:
        service = Service("ranker", bus, client, ExchangeClock(), Health(), asyncio.Event())
        for _ in range(2):
            service.clock.add(await client.measure_time())
        yield service


@pytest.mark.invariant(6)
async def test_a_ranking_is_published_whole_and_becomes_the_universe(exchange, service, settings, bus, tmp_path):
    """Invariant 6: judged by the simulator's own truth."""
    now = exchange.now()
    truth = exchange.truth_predicted(now)

    ranking = await rank_once(service, settings)

    ours = {place.symbol: place for place in ranking.ranks}
    assert not {"TSLA_USDT", "NVDA_USDT", "XAU_USDT", "HALTED_USDT"} & set(ours)
    assert {"BTC_USDT", "BTC_USD", "ETH_USD"} <= set(ours)
    assert len(ours) == 14
    scores = [place.score for place in ranking.ranks]
    assert scores == sorted(scores, reverse=True)
    assert all(
        float(truth[f"{symbol.replace('_', '-')}-SWAP"]) == pytest.approx(place.funding_rate, abs=1e-4)
        for symbol, place in ours.items()
    )
    assert json.loads((tmp_path / "top50_symbols.json").read_text()) == list(ranking.members)
    assert (await bus.universe()).members == ranking.members == ranking.added
    assert await bus.last_ranking() == ranking
    assert abs((ranking.ranked_time - from_ms(now)).total_seconds()) < 5


async def test_a_second_ranking_says_only_what_changed(service, settings):
    await rank_once(service, settings)

    again = await rank_once(service, settings.model_copy(update={"top_n": 3}))

    assert again.added == ()
    assert len(again.removed) == 2


@pytest.mark.invariant(11)
async def test_a_failing_exchange_keeps_the_last_universe_and_is_reported(exchange, service, settings, bus):
    """Invariant 11: it tries again, with pauses, for ever, until it works or is stopped."""
    before = await rank_once(service, settings)
    length = await bus.stream_length(Ranking.stream)
    service.exchange, working = NoSwaps("http://127.0.0.1:9"), service.exchange

    patiently = asyncio.create_task(Ranker(service, settings).rank_patiently())
    await until(lambda: "ranking" in service.health.problems)

    assert service.health.state == "degraded"
    assert "the last universe stays" in service.health.reason
    assert (await bus.universe()).members == before.members
    assert await bus.stream_length(Ranking.stream) == length

    service.exchange = working
    await asyncio.wait_for(patiently, 30)
    assert service.health.state == "ok"


class Thin(OkxClient):
    """An exchange whose lists lack rows: `keep` says which instruments are there, `rated` which rates, look by look."""

    keep = rated = staticmethod(lambda look, symbol: True)
    looks = 0

    async def instruments(self):
        self.looks += 1
        listing = await super().instruments()
        kept = {symbol: one for symbol, one in listing.instruments.items() if self.keep(self.looks, symbol)}
        return Listing(kept, frozenset(kept), [])

    async def predictions(self, *, now):
        page = await super().predictions(now=now)
        return Page([rate for rate in page.events if self.rated(self.looks, rate.symbol)])


@pytest.fixture
async def thin(exchange, service):
    async with Thin(exchange.rest_url, ca_file=exchange.ca_file) as client:
        service.exchange = client
        yield client


@pytest.mark.invariant(6)
@pytest.mark.parametrize("lists", ["keep", "rated"])
async def test_a_row_that_lacks_in_one_look_costs_nobody_its_place(service, settings, thin, lists):
    """Invariant 6."""
    whole = await rank_once(service, settings)
    thin.looks = 0
    setattr(thin, lists, lambda look, name: look > 1 or not name.startswith("BTC"))

    again = await rank_once(service, settings)

    assert {place.symbol for place in again.ranks} == {place.symbol for place in whole.ranks}
    assert thin.looks == 2


@pytest.mark.parametrize("lists", ["keep", "rated"])
async def test_lists_that_stay_thin_make_no_ranking(service, settings, bus, thin, lists):
    before = await rank_once(service, settings)
    setattr(thin, lists, lambda look, name: name.startswith("BTC"))

    with pytest.raises(ThinListError, match="less than half of the 14"):
        await rank_once(service, settings)
    assert (await bus.universe()).members == before.members


@pytest.mark.parametrize("lists", ["keep", "rated"])
async def test_the_first_ranking_does_not_believe_a_list_that_is_cut_off(service, settings, bus, thin, lists):
    """There is no ranking before it, so the two lists are held against each other."""
    setattr(thin, lists, lambda look, name: name.startswith("BTC"))

    with pytest.raises(ThinListError, match="less than half"):
        await rank_once(service, settings)

    assert await bus.universe() is None
    assert thin.looks == 3


async def test_a_swap_without_a_rate_is_left_out_and_said(service, settings, thin):
    await rank_once(service, settings)
    thin.rated = lambda look, name: name != "ETH_USD"

    ranking = await rank_once(service, settings)

    assert "ETH_USD" not in {place.symbol for place in ranking.ranks}
    assert service.health.details["unrated"] == ["ETH_USD"]


async def test_a_host_without_any_swap_is_refused_in_a_sentence(service, settings, thin):
    thin.keep = lambda look, name: False

    with pytest.raises(NothingToRankError, match="lists no perpetual swap at all"):
        await rank_once(service, settings)


async def test_a_host_with_x_perps_alone_is_refused_in_a_sentence(service, settings, bus):
    before = await rank_once(service, settings)
    with Simulator.start(symbols=3, extra=["--only-xperps"]) as european:
        async with OkxClient(european.rest_url, ca_file=european.ca_file) as service.exchange:
            with pytest.raises(NothingToRankError, match="X-Perps instead, which are futures: see OKX_REST_URL"):
                await rank_once(service, settings)

    assert (await bus.universe()).members == before.members


async def test_with_all_every_eligible_swap_is_a_member(service, settings):
    ranking = await rank_once(service, settings.model_copy(update={"top_n": "all"}))

    assert len(ranking.members) == ranking.top_n == 14
    assert all(place.member for place in ranking.ranks)


@pytest.mark.parametrize("wrong", ["0", "-3", "most"])
def test_a_universe_of_nobody_stops_the_start(wrong, capsys, monkeypatch):
    monkeypatch.setenv("TOP_N", wrong)

    with pytest.raises(SystemExit):
        read_settings(RankerSettings)

    assert "TOP_N" in capsys.readouterr().err


@pytest.mark.invariant(11)
async def test_a_redis_that_forgot_the_universe_gets_it_again(service, settings, bus, redis_url):
    """Invariant 11: not only at the next ranking, eight hours later."""
    running = asyncio.create_task(Ranker(service, settings).run())
    try:
        await until(lambda: service.health.started)
        before = await bus.universe()
        async with redis.Redis.from_url(redis_url) as raw:
            await raw.flushall()

        async with asyncio.timeout(patience(20)):
            while await bus.universe() is None:  # noqa: ASYNC110 - what is waited for happens in Redis
                await asyncio.sleep(0.05)

        assert await bus.universe() == before
        assert (await bus.last_ranking()).ranks
    finally:
        service.stop.set()
        await running


@pytest.mark.invariant(6)
async def test_a_new_ranker_on_an_empty_redis_publishes_the_last_rankings_and_who_left_since(service, settings, bus):
    """Invariant 6: who was a member until when is not lost with Redis and the process that knew it."""
    last = [await rank_once(service, settings.model_copy(update={"top_n": top_n})) for top_n in (5, 6, 5)]
    await bus._redis.flushall()

    ranking = await rank_once(service, settings.model_copy(update={"top_n": 3}))

    published = [decode(fields) for _, fields in await bus._redis.xrange(Ranking.stream)]
    assert published == [*last, ranking]
    assert ranking.added == ()
    assert ranking.removed == last[-1].members[3:]


def test_rankings_are_kept_so_many_and_no_more(tmp_path):
    rankings = [a_ranking("BTC_USDT", ranked_time=minute(number)) for number in range(KEPT + 2)]

    for ranking in rankings:
        keep(tmp_path, ranking)

    assert kept(tmp_path, "okx") == rankings[2:]


async def test_a_last_ranking_that_cannot_be_read_stops_nobody(service, settings, bus, tmp_path):
    rankings_file(tmp_path, "okx").write_text("{")

    ranking = await rank_once(service, settings)

    assert (await bus.universe()).members == ranking.added


async def test_once_ranks_publishes_and_ends(exchange, redis_url, tmp_path):
    environment = os.environ | {
        "REDIS_URL": redis_url,
        "OKX_REST_URL": exchange.rest_url,
        "OKX_CA_FILE": str(exchange.ca_file),
        "DATA_DIR": str(tmp_path),
        "TOP_N": "4",
        "LOG_FORMAT": "json",
    }

    done = subprocess.run(  # noqa: ASYNC221 - nothing else runs meanwhile
        [sys.executable, "-m", "services.ranker", "--once"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    bus = Bus(redis_url)
    assert len((await bus.universe()).members) == 4
    await bus.close()


def test_once_ends_soon_after_a_stop_although_the_exchange_says_nothing(redis_url, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connections are taken, nothing is said
        environment = os.environ | {
            "REDIS_URL": redis_url,
            "OKX_REST_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "DATA_DIR": str(tmp_path),
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "services.ranker", "--once"], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
        )
        try:
            with _first_request(silent):
                process.send_signal(signal.SIGTERM)
                assert process.wait(patience(8)) == 1
        finally:
            process.kill()
            process.wait()


def _first_request(server):
    """Wait for a request, and return its connection."""
    server.settimeout(patience(30))
    connection, _ = server.accept()
    connection.settimeout(patience(30))
    connection.recv(1)
    return connection
