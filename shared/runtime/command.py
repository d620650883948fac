"""How a process is started from a shell: --help, options, an exit code, and errors without decoration."""

from collections.abc import Callable

import typer


def run(main: Callable[..., object]) -> None:
    """Run a function as the command line program that its signature and docstring describe.

    A crash prints Python's own traceback, which log collectors understand and which shows no values.
    """
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
