"""What is wrong now, and does a notification arrive? `qlib-crypto alerts list|test`."""

import typer
from rich.console import Console

from cli.ask.questions import Api, Json, answer_of, connect, print_json
from cli.ask.tables import alerts_table
from shared.runtime.exit_codes import ExitCode

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Alerts: what is wrong now, and whether a notification arrives.",
)


@app.command("list")
def list_alerts(*, api: Api = None, as_json: Json = False) -> None:
    """Show the open alerts and what to do. Exit code 1 where there are some, or a notification did not get through."""
    answer = answer_of(connect(api), "/alerts")
    failing = {name: problem for name, problem in answer["targets"].items() if problem != "ok"}
    if as_json:
        print_json(answer)
    else:
        console = Console()
        console.print(alerts_table(answer["open"]) if answer["open"] else "no alert is open")
        for name, problem in failing.items():
            console.print(f"target {name}: {problem}", markup=False, soft_wrap=True)
        if not answer["targets"]:
            console.print("ALERT_URLS is empty: no one is notified", soft_wrap=True)
    raise typer.Exit(ExitCode.FINDING if answer["open"] or failing else ExitCode.FINE)


@app.command()
def test() -> None:
    """Send a test message to every target of ALERT_URLS. Exit code 1 where one fails, or there is none.

    The message goes out from here, with the settings that are valid here; the api sends alerts from its own process.
    """
    from services.api.alerts.__main__ import main  # noqa: PLC0415 - only the image of the api has it

    main(test=True)
