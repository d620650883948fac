"""The second exchange itself: a real WebSocket server on the loopback that a test commands."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve


class OtherExchange:
    """What is listed, who subscribed what, and every request that came."""

    def __init__(self, listed: set[str]) -> None:
        self.listed = listed
        self.requests: list[dict[str, Any]] = []
        self.topics: dict[ServerConnection, set[str]] = {}
        self.opened = 0
        self.busy = False
        """Whether it refuses every request as one too many."""
        self.url = ""

    @classmethod
    @asynccontextmanager
    async def open(cls, *listed: str) -> AsyncIterator[Self]:
        """Serve on a free port for the length of a block."""
        exchange = cls(set(listed))
        async with serve(exchange.serve, "127.0.0.1", 0) as server:
            exchange.url = f"ws://127.0.0.1:{_port(server)}"
            yield exchange

    async def serve(self, connection: ServerConnection) -> None:
        topics = self.topics[connection] = set()
        self.opened += 1
        try:
            async for text in connection:
                request = json.loads(text)
                self.requests.append(request)
                await connection.send(json.dumps({"no": request["no"], "status": self._take(request, topics)}))
        finally:
            del self.topics[connection]

    def _take(self, request: dict[str, Any], topics: set[str]) -> str:
        """Subscribe all of it or nothing; return the status."""
        if self.busy:
            return "slow down"
        if request["do"] == "unsubscribe":
            topics.difference_update(request["topics"])
        elif all(topic.partition("@")[0] in self.listed for topic in request["topics"]):
            topics.update(request["topics"])
        else:
            return "bad request"
        return "ok"

    async def push(self, name: str, **values: Any) -> None:
        """Send a bar to everyone who subscribed to it."""
        await self.send(f"{name}@1m", {"open": 0, "sent": 60, "bar": ["1", "3", "0.5", "2", "10"]} | values)

    async def send(self, topic: str, values: dict[str, Any]) -> None:
        """Send a frame to everyone who subscribed to a topic."""
        for connection, topics in list(self.topics.items()):
            if topic in topics:
                await connection.send(json.dumps({"topic": topic} | values))

    async def say(self, text: str) -> None:
        """Send a text to everyone."""
        for connection in list(self.topics):
            await connection.send(text)

    async def cut(self) -> None:
        """End every connection."""
        for connection in list(self.topics):
            await connection.close(1011, "an accident")


def _port(server: Server) -> int:
    return int(next(iter(server.sockets)).getsockname()[1])
