"""`python -m cli.die_with_parent PROGRAM ARGUMENTS...`: becomes the program, and lets it end with whoever started it.

supervisord restarts and stops its children only as long as it lives. Killed outright, it would leave five services and
a Redis running that no one stops. The kernel can do better: it sends a signal to a process when its parent dies.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def tie_to_parent() -> None:
    """Ask the kernel for SIGTERM at the parent's death. It outlives exec; systems other than Linux lack it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def main() -> None:
    """Become the program named by the arguments."""
    tie_to_parent()
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - no shell is wanted: the process id must stay


if __name__ == "__main__":
    main()
