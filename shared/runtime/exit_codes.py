"""What the exit code of a command means; every command of `qlib-crypto` ends with one of these."""

from enum import IntEnum


class ExitCode(IntEnum):
    """The meaning of an exit code."""

    FINE = 0
    FINDING = 1
    """The command did its work and found something wrong, or its work failed."""
    USAGE = 2
    """The command line or a setting is wrong."""
    NOT_AVAILABLE = 3
    """What the command needs is not here: a running system, a dataset, the exchange, a checkout."""
