"""When the results of each service are due: as its heartbeat publishes it. Pure."""

from collections.abc import Mapping

from shared.bus.heartbeat import Cadence, Heartbeat

DEFAULTS = {
    "ranker": Cadence(every_seconds=8 * 3600),
    "writer": Cadence(every_seconds=5),
    "converter": Cadence(every_seconds=24 * 3600),
}
"""What holds while a service has not published its cadence: what its settings are by default.

That is the case for the moments of an upgrade, when a service of an older version still runs, and while a service is
down. Then it is reported as down, and the fallback only decides which minutes still count as on their way to the disk.
"""


def cadence_of(service: str, heartbeats: Mapping[str, Heartbeat]) -> Cadence:
    """Return when the results of a service are due. Raises `KeyError` for a service without a schedule."""
    beat = heartbeats.get(service)
    return DEFAULTS[service] if beat is None or beat.cadence is None else beat.cadence
