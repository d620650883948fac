"""Which connection carries which instrument. Pure.

An instrument that stays never moves: a move would cost it the rows of the moment. So shards fill up, thin out, and are
closed when they are empty.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from itertools import count

from shared.symbol import Symbol


def assign(current: Mapping[Symbol, int], wanted: Collection[Symbol], per_shard: int) -> dict[Symbol, int]:
    """Return symbol → number of its shard, none of which holds more than `per_shard`.

    Those that stay keep their shard; a new one goes to the emptiest. A shard is opened only where the others have no
    room for all.
    """
    assigned = {symbol: current[symbol] for symbol in wanted if symbol in current}
    sizes = Counter(assigned.values())
    numbers = count()
    while len(sizes) * per_shard < len(wanted):
        if (number := next(numbers)) not in sizes:
            sizes[number] = 0
    for symbol in sorted(set(wanted) - assigned.keys()):
        shard = min(sizes, key=lambda number: (sizes[number], number))
        assigned[symbol] = shard
        sizes[shard] += 1
    return assigned
