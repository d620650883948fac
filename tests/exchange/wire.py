"""The exchange's WebSocket as a client speaks it."""

import asyncio
import json
from contextlib import asynccontextmanager

import websockets
from websockets.exceptions import InvalidStatus

from tests.support.patience import patience


@asynccontextmanager
async def connected(sim, path, **options):
    """Connect, trying again where the limit of three connects a second refuses."""
    async with asyncio.timeout(patience(10)):
        socket = await _admitted(f"{sim.ws_url}/{path}", sim.ssl_context, options)
    async with socket:
        yield socket


async def _admitted(url, ssl_context, options):
    while True:
        try:
            return await websockets.connect(url, ssl=ssl_context, ping_interval=None, **options)
        except InvalidStatus as error:
            if error.response.status_code != 429:
                raise
        await asyncio.sleep(0.05)


def args(channel, *inst_ids):
    return [{"channel": channel, "instId": inst_id} for inst_id in inst_ids]


async def send(socket, op, arguments, **fields):
    await socket.send(json.dumps({"op": op, "args": arguments, **fields}))


async def frames(socket, seconds):
    """Collect what arrives in so many seconds."""
    received = []
    try:
        async with asyncio.timeout(seconds):
            while True:
                received.append(json.loads(await socket.recv()))
    except TimeoutError:
        return received


async def events(socket, count):
    """Collect so many answers to operations, leaving pushes out."""
    received = []
    async with asyncio.timeout(patience(5)):
        while len(received) < count:
            frame = json.loads(await socket.recv())
            if "event" in frame:
                received.append(frame)
    return received


def rows(received, inst_id=None):
    """Return the candle rows of pushes, of one instrument or all."""
    pushes = [frame for frame in received if frame.get("arg", {}).get("channel") == "candle1m" and "data" in frame]
    return [frame["data"][0] for frame in pushes if inst_id in (None, frame["arg"]["instId"])]


async def until(socket, condition, seconds=10):
    """Collect frames until one fulfils a condition; it is the last one returned."""
    received = []
    async with asyncio.timeout(patience(seconds)):
        while True:
            text = await socket.recv()
            try:
                frame = json.loads(text)
            except ValueError:
                continue
            received.append(frame)
            if condition(frame):
                return received
