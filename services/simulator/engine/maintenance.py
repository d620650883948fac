"""Windows in which the exchange works on itself, as system/status and the channel `status` show them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

TRADING, COPY_TRADING = "5", "11"
"""serviceType, as documented, and as pushed for copy trading (title "Copy trading system scheduled maintenance")."""
PRODUCTION = "1"
"""env; the demo environment is 2."""


@dataclass(frozen=True, slots=True)
class Window:
    """One maintenance, in simulated time; with `halt` the minutes that open in it never exist."""

    announced_ms: int
    begin_ms: int
    end_ms: int
    halt: bool = False
    by_chaos: bool = False
    service_type: str = TRADING
    env: str = PRODUCTION

    def state(self, at_ms: int) -> str:
        """Return what the exchange calls it."""
        if at_ms < self.begin_ms:
            return "scheduled"
        return "ongoing" if at_ms < self.end_ms else "completed"

    def turning_points(self) -> tuple[int, ...]:
        """Return when its row changes."""
        return (self.announced_ms, self.begin_ms, self.end_ms)


def status_row(window: Window, at_ms: int) -> dict[str, Any]:
    """Spell one row of system/status."""
    return {
        "title": "System upgrade" if window.announced_ms < window.begin_ms else "System disruption",
        "state": window.state(at_ms),
        "begin": str(window.begin_ms),
        "end": str(window.end_ms),
        "preOpenBegin": "",
        "href": "",
        "serviceType": window.service_type,
        "maintType": "1" if window.announced_ms < window.begin_ms else "2",
        "env": window.env,
        "system": "unified",
        "scheDesc": "",
        "ts": str(at_ms),
    }


def halts(windows: Sequence[Window], begin_ms: int, end_ms: int) -> list[Window]:
    """Return the windows that take minutes of [begin, end) out of existence."""
    return [window for window in windows if window.halt and window.begin_ms < end_ms and window.end_ms > begin_ms]


def called_off(windows: Sequence[Window], at_ms: int) -> list[Window]:
    """Return the windows with nothing left, after an instant, of those that chaos made."""
    lasting = (window for window in windows if not window.by_chaos or window.begin_ms < at_ms)
    return [replace(window, end_ms=min(window.end_ms, at_ms)) if window.by_chaos else window for window in lasting]
