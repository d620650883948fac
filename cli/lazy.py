"""Commands that are imported when they are called.

`qlib-crypto --help` and shell completion list all of them, and pyarrow, aiohttp or supervisor take a second to import.
Several commands need what only one service's image has: there they end with a sentence.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from cli.place import enter, in_checkout
from cli.unavailable import NotAvailableError


@dataclass(frozen=True)
class Lazy:
    """A command, and where it is."""

    name: str
    target: str
    """module:attribute; a Typer application, a click command, or a function that describes itself."""
    help: str
    panel: str
    where: str = "a checkout"
    """What has all of its code."""

    def load(self) -> Any:
        """Import it. Raises `NotAvailableError` where it, or a package that it needs, is not installed."""
        module, attribute = self.target.split(":")
        try:
            found = getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            raise NotAvailableError(_missing(self.name, self.where, error)) from error
        return at_home(_command_of(found), self.name, self.where)


def _missing(name: str, where: str, error: ModuleNotFoundError) -> str:
    if in_checkout():
        return f"qlib-crypto {name}: {error}; `make env` installs what it needs"
    service = os.environ.get("SERVICE")
    here = f"the image of the service {service}" if service else "this installation"
    return f"qlib-crypto {name} is not part of {here}, it needs {where} ({error})"


def _command_of(found: Any) -> Any:
    if isinstance(found, typer.Typer):
        return get_command(found)
    if isinstance(found, TyperCommand | TyperGroup):
        return found
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(found)
    return get_command(app)


def at_home(command: Any, name: str, where: str = "a checkout") -> Any:
    """Let a command, or every command of a group, run from where the settings are.

    Its arguments are read before that: a path on the command line is meant from where it was typed.
    """
    below = getattr(command, "commands", None)
    for verb, one in (below or {}).items():
        at_home(one, f"{name} {verb}", where)
    if below is None:
        command.callback = _entering(command.callback, name, where)
    return command


def _entering(callback: Callable[..., Any], name: str, where: str) -> Callable[..., Any]:
    def run(*arguments: Any, **options: Any) -> Any:
        enter()
        try:
            return callback(*arguments, **options)
        except ModuleNotFoundError as error:
            raise NotAvailableError(_missing(name, where, error)) from error

    return run


class _Stub(TyperCommand):
    """Stands for a command in the list; becomes it once its arguments are read."""

    def __init__(self, lazy: Lazy) -> None:
        super().__init__(lazy.name, help=lazy.help, rich_help_panel=lazy.panel)
        self._lazy = lazy

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Import the command and let it read its arguments."""
        return self._lazy.load().make_context(info_name, args, parent=parent, **extra)


class LazyGroup(TyperGroup):
    """A group whose commands are named in `lazy`."""

    lazy: ClassVar[tuple[Lazy, ...]] = ()

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {one.name: _Stub(one) for one in self.lazy}
