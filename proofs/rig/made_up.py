"""Made-up rows for benchmarks: as hard to compress as a market's."""

import random
from datetime import datetime, timedelta

from shared.datasets.candle import Candle
from shared.grid import MINUTE
from shared.symbol import Symbol


def a_candle(symbol: Symbol, opened: datetime, dice: random.Random) -> Candle:
    """Return a candle that can be true."""
    price, volume = round(dice.uniform(90, 110), 4), round(dice.expovariate(0.1), 3)
    return Candle(
        exchange="okx",
        symbol=symbol,
        interval="1m",
        open_time=opened,
        open=price,
        high=round(price + 1 + dice.random(), 4),
        low=round(price - 1 - dice.random(), 4),
        close=round(price + dice.uniform(-0.5, 0.5), 4),
        volume=volume,
        amount=round(volume * price, 4),
        contracts=round(volume * 100, 1),
        source="ws",
        receive_time=opened + MINUTE + timedelta(milliseconds=dice.randrange(900)),
    )
