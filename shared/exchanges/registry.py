"""Which exchanges there are, and the client of one by its name.

An exchange is a package beside `shared/exchanges/okx` and a stream file beside `services/collector/stream/okx.py`; the
line in `EXCHANGES` names both. They are imported when they are asked for: only the collector has what a stream needs.
"""

from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from shared.exchanges.base import Exchange, OpenExchange, Share
from shared.symbol import suffix_of


class Parts(NamedTuple):
    """Where the parts of an exchange are: `module:name`."""

    client: str
    """An `OpenExchange` (`shared.exchanges.base`)."""
    stream: str
    """An `OpenStreams` (`services.collector.stream.connection`)."""


EXCHANGES: dict[str, Parts] = {
    "okx": Parts("shared.exchanges.okx.rest:OkxClient", "services.collector.stream.okx:open_streams"),
}


def part_of(exchange: str, part: str) -> Any:
    """Return a part of an exchange, `client` or `stream`. Raises `KeyError` where there is no such exchange."""
    module, _, name = getattr(EXCHANGES[exchange], part).partition(":")
    return getattr(import_module(module), name)


def open_exchange(exchange: str, base_url: str, *, ca_file: Path | None = None, share: Share = "service") -> Exchange:
    """Make the client of an exchange; `share` is the part of each limit that it takes."""
    make: OpenExchange = part_of(exchange, "client")
    return make(base_url, ca_file=ca_file, share=share)


def instance_of(service: str, exchange: str) -> str:
    """Name the process of a service that there is one of for each exchange: `collector`, `collector.binance`."""
    return service + suffix_of(exchange).lower()


def exchange_of(service: str, instance: str) -> str | None:
    """Return the exchange of an instance of a service; None where it is none."""
    return next((exchange for exchange in EXCHANGES if instance_of(service, exchange) == instance), None)
