"""A minute while it is still forming: a deterministic path from open to close that stays inside the candle."""

from services.simulator.engine.market import MINUTE_MS, Candle


def partial_candle(candle: Candle, at_ms: int, price_decimals: int) -> Candle:
    """Return the minute as it stands at an instant inside it (open fixed, high and low within, volume growing).

    The price walks open, first extreme, second extreme, close, a third of the minute each; a rising minute visits
    its low first. Volume grows in proportion to time.
    """
    share = min(1.0, max(0.0, (at_ms - candle.open_ms) / MINUTE_MS))
    if share >= 1.0 or candle.base_volume == 0:
        return candle
    extremes = (candle.low, candle.high) if candle.close >= candle.open else (candle.high, candle.low)
    path = (candle.open, *extremes, candle.close)
    leg, along = divmod(share * 3, 1)
    passed = path[: int(leg) + 1]
    price = path[int(leg)] + (path[int(leg) + 1] - path[int(leg)]) * along
    price = min(candle.high, max(candle.low, round(price, price_decimals)))
    return Candle(
        candle.open_ms,
        candle.open,
        max(*passed, price),
        min(*passed, price),
        price,
        _share_of(candle.base_volume, share),
        _share_of(candle.quote_volume, share),
    )


def _share_of(volume: float, share: float) -> float:
    """Six significant digits of a share: a running figure, rounded down so that it never exceeds the whole."""
    part = float(f"{volume * share:.6g}")
    return min(part, volume)
