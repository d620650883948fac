"""How does a run end that is asked to end? It leaves every block, and so stops every stack."""

import signal


def end_on_signals() -> None:
    """Let SIGTERM, and the end of the terminal, do what Ctrl-C does."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
