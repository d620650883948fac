"""`python -m services.api.alerts`: show the open alerts, or test the targets with `--test`."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from services.api.alerts.lifecycle import Alert
from services.api.alerts.loop import SavedAlerts
from services.api.alerts.message import Message
from services.api.alerts.notifiers import Notifier, configured_notifiers
from services.api.completeness.reader import LedgerReader
from services.api.health.snapshot import BusSilentError, Sources, redis_name
from services.api.settings import ApiSettings
from shared.bus.bus import Bus
from shared.clock import ExchangeClock
from shared.runtime.command import run
from shared.runtime.exit_codes import ExitCode
from shared.runtime.service import Health
from shared.runtime.settings import read_settings

_TEST = Message(title="qlib-crypto: a test", body="If you read this, alerts reach you.", severity=None)


def send_test(notifiers: Sequence[Notifier], console: Console) -> int:
    """Send a test message to every target and print the result of each; return the exit code."""
    if not notifiers:
        console.print("ALERT_URLS is empty: no notification is sent")
        return 1
    failed = 0
    for notifier in notifiers:
        problem = notifier.send(_TEST)
        failed += problem is not None
        console.print(f"target {notifier.name}: {problem or 'delivered'}", markup=False, soft_wrap=True)
    return 1 if failed else 0


async def open_alerts(settings: ApiSettings) -> list[Alert]:
    """Return the open alerts that the api has saved. Raises `BusSilentError`."""
    bus = Bus(str(settings.redis_url), timeout_seconds=2)
    name = redis_name(settings.redis_url)
    sources = Sources(
        bus, name, ExchangeClock(), Health(), settings.data_dir, settings.qlib_dir, LedgerReader(settings.data_dir)
    )
    try:
        text = await sources.ask(bus.kept_alerts())
    finally:
        await bus.close()
    return msgspec.json.decode(text or "{}", type=SavedAlerts).alerts


def show(alerts: Sequence[Alert], console: Console) -> None:
    """Print the alerts that are open."""
    table = Table("since (UTC)", "severity", "what", "notified")
    for alert in sorted(alerts, key=lambda alert: alert.since):
        notified = f"{alert.notified:%H:%M}" if alert.notified else "not yet"
        table.add_row(f"{alert.since:%Y-%m-%d %H:%M}", alert.severity, alert.what, notified)
    console.print(table if alerts else "no alert is open")


def main(
    test: Annotated[bool, typer.Option("--test", help="Send a test message to every target of ALERT_URLS")] = False,
) -> None:
    """Show the alerts that are open, or test the targets.

    --test exits with 1 where a target fails, or where there is none.
    """
    settings, console = read_settings(ApiSettings), Console()
    if test:
        sys.exit(send_test(configured_notifiers(settings.alert_urls), console))
    try:
        show(asyncio.run(open_alerts(settings)), console)
    except BusSilentError as error:
        console.print(str(error), markup=False)
        sys.exit(ExitCode.NOT_AVAILABLE)


if __name__ == "__main__":
    run(main)
