"""The one line that a second exchange needs, for every process that has this folder on its path."""

from shared.exchanges.registry import EXCHANGES, Parts

EXCHANGES["other"] = Parts(
    "tests.support.other_exchange.client:OtherClient", "tests.support.other_exchange.stream:open_streams"
)
