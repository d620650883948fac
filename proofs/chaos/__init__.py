"""Everything goes wrong at once, and not a minute may be lost.

The real processes follow a generated market, many times as fast as the real one, while faults of every kind hit them in
an order that the seed decides: processes, Redis, disk, files, sockets, answers. Then it grows quiet, the system gets
time to heal, and all that it stored is compared with what the simulator knows to be true.
"""
