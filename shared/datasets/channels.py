"""Which channels there are. A new one is a line in `CHANNELS`, its events beside this, and the collector's part."""

from shared.datasets.candle import Candle
from shared.datasets.channel import Channel, DueInstants, EveryMinute
from shared.datasets.funding import FundingRate, PredictedFundingRate

CHANNELS: dict[str, Channel] = {
    channel.name: channel
    for channel in (
        Channel(
            name="candles",
            events={Candle: EveryMinute()},
            collector="services.collector.channels.candles:Candles",
            cap=500_000,
            stale_seconds=90.0,
            letters=("candles", "history"),
        ),
        Channel(
            name="funding",
            events={FundingRate: DueInstants(), PredictedFundingRate: None},
            collector="services.collector.channels.funding:Funding",
            cap=200_000,
            stale_seconds=360.0,
            letters=("funding",),
        ),
    )
}
"""By name, in the order in which a collector opens them. `stale_seconds` is three times the silence after which the
collector opens a new connection: then two new ones did not help."""
