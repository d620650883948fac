"""The bus: streams, dead letters, and what is known now. I/O."""

from shared.bus.dead_letters import DeadLetters
from shared.bus.state import State
from shared.bus.streams import Streams


class Bus(Streams, DeadLetters, State):
    """One connection to the bus, with everything that it can do."""
