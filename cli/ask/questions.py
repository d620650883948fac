"""What a person asks a running system: status, gaps, ranking. The api answers; see /docs there. I/O."""

import json
from collections.abc import Mapping
from enum import StrEnum
from http.client import HTTPException
from typing import Annotated, Any
from urllib.error import HTTPError
from urllib.parse import urlencode

import typer
from rich.console import Console

from cli.ask.discovery import Candidate, find_api
from cli.ask.tables import freshness, gaps_table, minute, ranking_table, services_table, settlements_table
from cli.machine import get_json
from cli.settings import CommandSettings
from cli.unavailable import NotAvailableError, UsageProblemError
from shared.runtime.exit_codes import ExitCode
from shared.runtime.settings import read_settings

_BAD_REQUEST, _SERVER_ERROR = 400, 500
_NOT_FOUND = 404

Api = Annotated[
    str | None, typer.Option("--api", metavar="URL", help="The api to ask; by default the one that runs here")
]
Json = Annotated[bool, typer.Option("--json", help="Print the api's answer as it is, for machines")]
Symbol = Annotated[str | None, typer.Option(help="Only this one, such as BTC_USDT")]
Begin = Annotated[str | None, typer.Option(help="ISO time, UTC: the first minute")]
End = Annotated[str | None, typer.Option(help="ISO time, UTC: the minute after the last one")]


class GapVerdict(StrEnum):
    """Which minutes are asked for."""

    MISSING = "missing"
    REFUSED = "refused"
    ABSENT = "absent"
    HALTED = "halted"


_WRONG = {GapVerdict.MISSING, GapVerdict.REFUSED}
"""Minutes that the exchange has, or may have; of the others it has said that there are none."""


def connect(given: str | None) -> Candidate:
    """Find the api. Raises `NotAvailableError`."""
    return find_api(read_settings(CommandSettings), given)


def answer_of(api: Candidate, path: str, **query: object) -> Any:
    """Return what the api answers.

    Raises `UsageProblemError` for a question that it does not understand, and `NotAvailableError`.
    """
    asked = {name: value for name, value in query.items() if value is not None}
    url = api.url + path + (f"?{urlencode(asked)}" if asked else "")
    try:
        return get_json(url)
    except HTTPError as error:
        usage = _BAD_REQUEST <= error.code < _SERVER_ERROR and error.code != _NOT_FOUND
        kind = UsageProblemError if usage else NotAvailableError
        raise kind(detail_of(_body(error)) or f"{url}: HTTP {error.code}") from error
    except OSError as error:
        raise NotAvailableError(f"{url}: {getattr(error, 'reason', error)}") from error


def _body(error: HTTPError) -> Any:
    try:
        return json.loads(error.read())
    except (OSError, HTTPException, ValueError):
        return None


def detail_of(body: Any) -> str:
    """Return the api's reason for not answering: a sentence, or what is wrong with each parameter. Pure."""
    detail = body.get("detail") if isinstance(body, dict) else None
    if isinstance(detail, list):
        return "; ".join(f"{one['loc'][-1]}: {one['msg']}" for one in detail)
    return detail if isinstance(detail, str) else ""


def print_json(answer: Mapping[str, Any]) -> None:
    """Print an answer as it is, and readable."""
    typer.echo(json.dumps(answer, indent=2, ensure_ascii=False))


def status(*, api: Api = None, as_json: Json = False) -> None:
    """Is it healthy, and what is wrong where it is not? Exit code 1 where the verdict is not ok."""
    running = connect(api)
    answer = answer_of(running, "/status")
    if as_json:
        print_json(answer)
    else:
        console = Console(soft_wrap=False)
        console.print(services_table(answer["services"]))
        lag = answer_of(running, "/lag") if answer["redis"] == "ok" else None
        for line in (freshness(lag), f"{answer['verdict']}: {answer['reason']}"):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(ExitCode.FINE if answer["verdict"] == "ok" else ExitCode.FINDING)


def gaps(
    *,
    begin: Begin = None,
    end: End = None,
    symbol: Symbol = None,
    verdict: Annotated[
        GapVerdict, typer.Option(help="refused: the exchange's candle cannot be true; absent, halted: it has none")
    ] = GapVerdict.MISSING,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The newest so many")] = 100,
    api: Api = None,
    as_json: Json = False,
) -> None:
    """Which minutes and settlements are missing? Exit code 1 where some are missing or refused.

    What is asked for is all that the system keeps in mind, about a month, or a span.
    """
    answer = answer_of(connect(api), "/gaps", begin=begin, end=end, symbol=symbol, verdict=verdict.value, limit=limit)
    found = answer["total"] + answer["settlements_total"]
    if as_json:
        print_json(answer)
    else:
        console = Console()
        if answer["gaps"]:
            console.print(gaps_table(answer["gaps"]))
        if answer["settlements"]:
            console.print(settlements_table(answer["settlements"]))
        console.print(_sum_of_gaps(answer), highlight=False, soft_wrap=True)
    raise typer.Exit(ExitCode.FINDING if found and verdict in _WRONG else ExitCode.FINE)


def _sum_of_gaps(answer: Mapping[str, Any]) -> str:
    span = f"from {minute(answer['begin'])} to {minute(answer['end'])} UTC"
    text = f"{answer['minutes']:,} minutes {answer['verdict']} in {answer['total']:,} gaps {span}"
    if answer["settlements_total"]:
        text += f"; {answer['settlements_total']:,} settled funding rates missing"
    shown = len(answer["gaps"])
    return text if shown == answer["total"] else f"{text}; the newest {shown:,} are shown"


def ranking(
    *,
    at: Annotated[str | None, typer.Option(help="ISO time, UTC: the ranking in force then; by default now")] = None,
    api: Api = None,
    as_json: Json = False,
) -> None:
    """Who is, or was, in the universe? Exit code 3 where nothing was ranked by then."""
    answer = answer_of(connect(api), "/universe", at=at)
    if as_json:
        print_json(answer)
        return
    console = Console()
    console.print(ranking_table(answer["members"]))
    of = "" if answer["total"] is None else f" of {answer['total']:,}"
    how = "|funding rate|" if answer["rank_by"] == "raw" else "|funding rate| per 8 h"
    ranked = minute(answer["ranked_time"])
    console.print(f"{len(answer['members'])}{of} by {how}, ranked {ranked} UTC", highlight=False, soft_wrap=True)
