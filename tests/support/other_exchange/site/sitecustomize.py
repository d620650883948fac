"""The line of a third channel, and that of a second exchange, for every process with this folder on its path."""

from shared.datasets.channels import CHANNELS
from tests.support.other_channel.trade import TRADES

CHANNELS["trades"] = TRADES

from shared.exchanges.registry import EXCHANGES, Parts  # noqa: E402 - what is imported derives from the channels

EXCHANGES["other"] = Parts(
    "tests.support.other_exchange.client:OtherClient", "tests.support.other_exchange.stream:open_streams"
)
