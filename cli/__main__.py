"""`qlib-crypto`, or `python -m cli`: every command that a person types, in one list."""

import sys
from typing import Annotated, Any

import typer

from cli.lazy import Lazy, LazyGroup
from cli.unavailable import NotAvailableError, UsageProblemError
from shared.runtime.exit_codes import ExitCode

_HELP = """OKX perpetual swaps as a Qlib dataset: collect them, see how it goes, look after the data.

Commands find the running system by themselves. Settings come from the environment and .env;
relative folders are those of the checkout.

Exit codes: 0 fine; 1 a finding: something is wrong, or the work failed; 2 wrong usage or setting; 3 not available:
nothing runs, there is no dataset, the exchange does not answer, or the command is not part of this image.
"""

_RUN, _ASK, _KEEP = "Run it", "Ask the running system", "Look after it"
_API, _WRITER, _CONVERTER = (f"a checkout or the container `{service}`" for service in ("api", "writer", "converter"))


class Commands(LazyGroup):
    """All commands. Each is imported when it is called: --help and completion wait for none."""

    lazy = (
        Lazy("run", "cli.run:main", "Collect from the exchange on this machine, without Docker, until Ctrl-C.", _RUN),
        Lazy("demo", "cli.demo:main", "Show the whole system on a simulated exchange; ends with a DataFrame.", _RUN),
        Lazy("status", "cli.ask.questions:status", "Is it healthy, and what is wrong where it is not?", _ASK),
        Lazy("gaps", "cli.ask.questions:gaps", "Which minutes and settlements are missing?", _ASK),
        Lazy("ranking", "cli.ask.questions:ranking", "Who is, or was, in the universe?", _ASK),
        Lazy("alerts", "cli.ask.alerts:app", "What is wrong now; and does a notification arrive?", _ASK, _API),
        Lazy("doctor", "cli.doctor:main", "Check this machine: each line ok, or what to do.", _KEEP),
        Lazy(
            "audit", "services.writer.audit.__main__:main", "Ask the exchange again for what is stored.", _KEEP, _WRITER
        ),
        Lazy(
            "dead-letters",
            "services.writer.dead_letters:app",
            "Inputs that made no sense: list, replay.",
            _KEEP,
            _WRITER,
        ),
        Lazy(
            "compact",
            "services.writer.compact:main",
            "Put the newest rows into the day files now.",
            _KEEP,
            _WRITER,
        ),
        Lazy("dataset", "cli.dataset:group", "Versions and snapshots of the Qlib dataset.", _KEEP, _CONVERTER),
        Lazy("bench", "proofs.bench.__main__:main", "Measure what work costs, beside peer and floor.", _KEEP),
        Lazy("docs", "cli.docs:app", "Print a document that is generated from the code.", _KEEP),
    )


app = typer.Typer(name="qlib-crypto", cls=Commands, help=_HELP, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def _root(
    stack: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The simulated system in .run/NAME, such as demo, not the one of .env"),
    ] = None,
) -> None:
    if stack is not None:
        from cli.simulated import use_stack  # noqa: PLC0415 - imports the settings; --help does not need them

        use_stack(stack)


def main(arguments: list[str] | None = None) -> Any:
    """Run a command line; end with its exit code."""
    try:
        app(arguments, prog_name="qlib-crypto")
    except UsageProblemError as error:
        _end(error, ExitCode.USAGE)
    except NotAvailableError as error:
        _end(error, ExitCode.NOT_AVAILABLE)


def _end(error: Exception, code: ExitCode) -> None:
    print(error, file=sys.stderr)  # noqa: T201 - what a person reads
    sys.exit(code)


if __name__ == "__main__":
    main()
