"""Versions and snapshots of the dataset, as the converter keeps them, and what Qlib itself reads."""

from typing import Annotated

import typer
from typer.core import TyperGroup
from typer.main import get_command

from cli.research.environment import print_dataframes
from cli.unavailable import NotAvailableError
from services.converter.settings import ConverterSettings
from services.converter.versions.__main__ import app
from shared.runtime.exit_codes import ExitCode
from shared.runtime.settings import read_settings
from shared.storage.qlib_layout import calendars_of


def show(rows: Annotated[int, typer.Option(min=1, help="How many rows of each DataFrame")] = 8) -> None:
    """Read the dataset with the real pyqlib and print its newest rows."""
    qlib_dir = read_settings(ConverterSettings).qlib_dir
    if not calendars_of(qlib_dir).is_dir():
        raise NotAvailableError(f"{qlib_dir}: there is no dataset yet; the converter makes it")
    raise typer.Exit(ExitCode.FINE if print_dataframes(qlib_dir.absolute(), rows) else ExitCode.FINDING)


def with_show(group: TyperGroup) -> TyperGroup:
    """Return the converter's commands with `show` beside them."""
    beside = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    beside.command()(show)
    group.add_command(get_command(beside), "show")
    return group


group = with_show(get_command(app))  # type: ignore[arg-type]
