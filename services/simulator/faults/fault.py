"""What a fault is: the script of one, and what it acts upon."""

from typing import Literal, NamedTuple

import msgspec

from services.simulator.engine.clock import instant_ms

Path = Literal["public", "business"]
REST_PATHS = (
    "/api/v5/public/instruments",
    "/api/v5/public/underlying",
    "/api/v5/public/funding-rate",
    "/api/v5/public/funding-rate-history",
    "/api/v5/market/candles",
    "/api/v5/market/history-candles",
    "/api/v5/public/time",
    "/api/v5/system/status",
)
"""The paths over REST that a fault can strike: those that are answered."""
PushType = Literal["forming", "confirm", "funding", "instruments", "status"]


SPELLED = {"inst_id": "instId", "service_type": "serviceType"}
"""Fields that are spelled otherwise in JSON."""


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename=SPELLED):
    """One scripted fault, as written in JSON; None stands for what the kind does by default."""

    kind: str
    at: int | str | None = None
    """Simulated time, ms or ISO; None: at once."""
    duration: float | None = None
    """Seconds, on `clock`."""
    clock: Literal["sim", "wall"] = "sim"
    """The clock that `duration` runs on: the exchange's or the host's."""
    count: int | None = None
    path: Path | None = None
    endpoint: str | None = None
    """The end of a REST path, e.g. `market/candles`."""
    inst_id: str | None = None
    delay: float | None = None
    """Seconds by which something is late: simulated for what concerns minutes, on `clock` for what is slow."""
    variant: str | None = None
    """Which way of going wrong, for kinds that know several."""
    status: int | None = None
    """http_error: the HTTP status."""
    html: bool = False
    """http_error: an HTML page as a proxy sends it, instead of the exchange's JSON."""
    where: Literal["push", "rest"] | None = None
    """For kinds that exist on both: in pushes (the default) or in answers over REST."""
    row: str | int | list[str] | None = None
    """Which rows of a list: an instId (or, of candles, an open time), a place (below 0 from the end), several instIds,
    `*` for all; without it the first one."""
    field: str | int | None = None
    """odd_value: the name, or the column, of the value that is replaced; without it the row is, as a whole."""
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """odd_value: what stands there instead, any JSON; left out, the field is missing."""
    push: PushType | None = None
    """odd_value, flood: only pushes of this type."""
    share: float | None = None
    """thin_list: how much of the list is left, from its beginning."""
    seconds: float | None = None
    """odd_time: by how much the clock is ahead, below 0 behind."""
    size: int | None = None
    """Bytes: of an answer once it is unpacked, of a frame, of the value in each row of a flood."""
    target: str | None = None
    """redirect: scheme and host of where the answer leads."""
    service_type: str | None = None
    """maintenance: what is worked on, as the exchange codes it: 5 trading, 11 copy trading."""
    env: str | None = None
    """maintenance: 1 production, 2 the demo environment."""


class Push(NamedTuple):
    """A message about to leave, to everybody who subscribed to it."""

    path: Path
    channel: str
    inst_id: str
    """The instType for the channel `instruments`, nothing for `status`."""
    kind: PushType
    payload: bytes


class Delivery(NamedTuple):
    """What really leaves, and how many simulated ms late."""

    delay_ms: int
    payload: bytes


class Asked(NamedTuple):
    """A request as a fault sees it."""

    endpoint: str
    inst_id: str | None
    now_ms: int
    sequence: int = 1
    """The number of this answer among those that the fault changed."""
    seconds: float = 0.0
    """The fault's `delay` in wall seconds."""


class Reply(NamedTuple):
    """An answer to a request."""

    status: int
    body: bytes
    content_type: str
    code: str
    after: float = 0.0
    """Wall seconds until it leaves; infinity: it never does."""
    headers: tuple[tuple[str, str], ...] = ()


class Outcome(NamedTuple):
    """How a subscription really goes."""

    answer: Literal["ack", "error", "nothing"] = "ack"
    data: Literal["flows", "withheld", "none"] = "flows"
    """withheld: it counts as subscribed, but nothing comes; none: it was never made."""


def begin_ms(fault: Fault, now_ms: int) -> int:
    """Return the simulated instant at which a fault begins."""
    return now_ms if fault.at is None else instant_ms(fault.at)
