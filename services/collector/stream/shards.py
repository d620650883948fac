"""Which connection carries which instrument. Pure.

An instrument that stays never moves: a move would cost it the rows of the moment. So shards fill up, thin out, and are
closed when they are empty.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from itertools import count


def assign(current: Mapping[str, int], wanted: Collection[str], per_shard: int) -> dict[str, int]:
    """Return instrument → number of its shard, none of which holds more than `per_shard`.

    Those that stay keep their shard; a new one goes to the emptiest. A shard is opened only where the others have no
    room for all.
    """
    assigned = {inst_id: current[inst_id] for inst_id in wanted if inst_id in current}
    sizes = Counter(assigned.values())
    numbers = count()
    while len(sizes) * per_shard < len(wanted):
        if (number := next(numbers)) not in sizes:
            sizes[number] = 0
    for inst_id in sorted(set(wanted) - assigned.keys()):
        shard = min(sizes, key=lambda number: (sizes[number], number))
        assigned[inst_id] = shard
        sizes[shard] += 1
    return assigned
