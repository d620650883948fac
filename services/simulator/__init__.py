"""An OKX that runs offline: recorded or generated markets, the exchange's own protocol, scripted faults."""
