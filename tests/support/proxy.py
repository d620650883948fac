"""An HTTP proxy as companies run it: it opens tunnels (CONNECT) and nothing else. A real one, on loopback."""

import asyncio
import contextlib
import threading
from base64 import b64encode
from collections import Counter
from types import TracebackType
from typing import Self

_SECONDS = 10.0


class Proxy:
    """A running proxy; a context manager that stops it. It runs in a thread of its own, beside a test's loop."""

    def __init__(self, *, names: dict[str, str] | None = None, user: str | None = None, refuse: int = 0) -> None:
        """Plan a proxy.

        Args:
            names: Host → address, for hosts that only the proxy can find.
            user: `name:password` that it asks for; None: anybody may use it.
            refuse: HTTP status with which every request is refused; 0: none. It may be changed while it runs.

        """
        self.names = names or {}
        self.refuse = refuse
        self.tunnels: Counter[str] = Counter()
        """Tunnels that were opened: `host:port`, as the client named it."""
        self.refused: Counter[str] = Counter()
        """What was refused: `METHOD target`."""
        self._credentials = None if user is None else "Basic " + b64encode(user.encode()).decode()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        """What goes into HTTPS_PROXY."""
        return f"http://127.0.0.1:{self.port}"

    def url_for(self, user: str) -> str:
        """Return what goes into HTTPS_PROXY for a user: `name:password`, as it is spelled in a URL."""
        return f"http://{user}@127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_SECONDS)
        self._loop.close()

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ", 2)
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        if status := self._verdict(method, fields):
            self.refused[f"{method} {target}"] += 1
            writer.write(f"HTTP/1.1 {status} Refused by the proxy\r\nContent-Length: 0\r\n\r\n".encode())
            await writer.drain()
            return
        host, _, port = target.rpartition(":")
        self.tunnels[target] += 1
        far_reader, far_writer = await asyncio.open_connection(self.names.get(host, host), int(port))
        try:
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await writer.drain()
            await _until_one_ends(_copy(reader, far_writer), _copy(far_reader, writer))
        finally:
            far_writer.close()

    def _verdict(self, method: str, fields: dict[str, str]) -> int:
        """Return the status with which a request is refused; 0: none."""
        if self._credentials is not None and fields.get("proxy-authorization") != self._credentials:
            return 407
        return self.refuse or (0 if method == "CONNECT" else 405)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


async def _until_one_ends(*copies: "asyncio._CoroutineLike[None]") -> None:
    tasks = [asyncio.ensure_future(copy) for copy in copies]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
