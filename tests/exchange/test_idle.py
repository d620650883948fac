"""What the port does to clients that are silent or do not read; without TLS, to reach the connection from inside."""

import asyncio

import pytest
from aiohttp import WSMsgType
from aiohttp.test_utils import TestClient, TestServer

from services.simulator.engine.clock import SimulatedClock
from services.simulator.engine.life import LivingMarket
from services.simulator.engine.synthetic import SyntheticMarket
from services.simulator.faults.plan import FaultPlan
from services.simulator.okx.sockets import Sockets
from services.simulator.stats import Stats

NOW = 1_795_000_030_000


@pytest.fixture
async def served():
    """Serve one client; gives the port, the connection on its side, and the client's socket."""
    sockets = Sockets(LivingMarket(SyntheticMarket(2, 1, NOW)), SimulatedClock(NOW), FaultPlan(), Stats())
    async with TestClient(TestServer(sockets.app())) as client, client.ws_connect("/ws/v5/public") as socket:
        pump = asyncio.create_task(sockets.pump())
        (connection,) = sockets._connections.values()
        yield sockets, connection, socket
        pump.cancel()


async def test_thirty_silent_seconds_are_closed_with_4004(served):
    _, connection, socket = served

    connection.last_activity -= 29
    with pytest.raises(TimeoutError):
        await socket.receive(timeout=0.7)
    connection.last_activity -= 1
    message = await socket.receive(timeout=2)

    assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, 4004, "No data received in 30s.")


async def test_a_ping_is_a_sign_of_life(served):
    _, connection, socket = served

    connection.last_activity -= 31
    await socket.send_str("ping")

    assert (await socket.receive(timeout=2)).data == "pong"
    with pytest.raises(TimeoutError):
        await socket.receive(timeout=0.7)


async def test_a_client_that_does_not_read_is_closed(served, monkeypatch):
    sockets, _, socket = served
    monkeypatch.setattr("services.simulator.okx.sockets.SLOW_CONSUMER_BYTES", -1)

    message = await socket.receive(timeout=2)

    assert message.type in {WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR}
    assert sockets._stats.closes == {"slow": 1}
