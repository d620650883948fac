"""What goes wrong and when: a plan of scripted faults, decided here and applied where bytes leave.

A fault begins at its instant and is over when it has happened `count` times or `duration` has passed; with neither
it happens once. One kind is one entry in one of the three tables below: what cuts connections, what changes pushes,
what answers requests.
"""

from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import msgspec

LOG_LENGTH = 10_000
"""Applied faults that are remembered."""

Path = Literal["public", "business"]


class BadFaultError(ValueError):
    """A fault that is not understood; the message says what to write instead."""


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"inst_id": "instId"}):
    """One scripted fault, as written in JSON."""

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
    delay: float = 5.0
    """late_confirm: simulated seconds."""
    variant: Literal["text", "truncated", "empty_rate"] = "text"
    """garbage: a frame that is no JSON, half a push, or a push with fundingRate ""."""
    status: int = 503
    """http_error: the HTTP status."""
    html: bool = False
    """http_error: an HTML page as a proxy sends it, instead of the exchange's JSON."""


class Push(NamedTuple):
    """A message about to leave, to everybody who subscribed to it."""

    path: Path
    channel: str
    inst_id: str
    kind: Literal["forming", "confirm", "funding"]
    payload: bytes


class Delivery(NamedTuple):
    """What really leaves, and how many simulated ms late."""

    delay_ms: int
    payload: bytes


class Reply(NamedTuple):
    """An answer given instead of the real one."""

    status: int
    body: bytes
    content_type: str
    code: str


CONNECTION_KINDS = ("drop", "close")
"""drop: TCP abort without a close frame; close: clean close 1000. With a duration, also whoever connects during it."""


def _silence(_fault: Fault, _push: Push, _deliveries: list[Delivery]) -> list[Delivery]:
    return []


def _lost_confirm(_fault: Fault, push: Push, _deliveries: list[Delivery]) -> list[Delivery] | None:
    return [] if push.kind == "confirm" else None


def _late_confirm(fault: Fault, push: Push, deliveries: list[Delivery]) -> list[Delivery] | None:
    if push.kind != "confirm":
        return None
    return [Delivery(delay + int(fault.delay * 1000), payload) for delay, payload in deliveries]


def _duplicate_confirm(_fault: Fault, push: Push, deliveries: list[Delivery]) -> list[Delivery] | None:
    return deliveries * 2 if push.kind == "confirm" else None


def _garbage(fault: Fault, push: Push, deliveries: list[Delivery]) -> list[Delivery] | None:
    """Put a broken frame in front of the real one, which is not lost itself."""
    if fault.variant == "text":
        return [Delivery(0, b"upstream connect error or disconnect/reset before headers"), *deliveries]
    if fault.variant == "truncated":
        return [Delivery(0, push.payload[: len(push.payload) // 2]), *deliveries]
    if push.kind != "funding":
        return None
    message = msgspec.json.decode(push.payload)
    message["data"][0]["fundingRate"] = ""
    return [Delivery(0, msgspec.json.encode(message)), *deliveries]


PushKind = Callable[[Fault, Push, list[Delivery]], list[Delivery] | None]

PUSH_KINDS: dict[str, PushKind] = {
    "silence": _silence,
    "lost_confirm": _lost_confirm,
    "late_confirm": _late_confirm,
    "duplicate_confirm": _duplicate_confirm,
    "garbage": _garbage,
}
"""Each changes what is delivered; None means that the push is not of its concern."""


def _http_error(fault: Fault, _sequence: int) -> Reply:
    if fault.html:
        page = f"<html><head><title>{fault.status}</title></head><body>cloudflare</body></html>"
        return Reply(fault.status, page.encode(), "text/html", "html")
    code = {503: "50001", 500: "50026", 400: "50004", 429: "50013"}.get(fault.status, "50026")
    return Reply(fault.status, envelope(code, "Service temporarily unavailable."), "application/json", code)


def _rate_limit(_fault: Fault, sequence: int) -> Reply:
    """Answer 50011 under HTTP 429 and, every other time, under HTTP 200: the exchange does both."""
    return rate_limit_reply(sequence)


REQUEST_KINDS: dict[str, Callable[[Fault, int], Reply]] = {"http_error": _http_error, "rate_limit": _rate_limit}
"""Each makes the answer to a request; the number counts the fault's answers."""


def envelope(code: str, message: str, data: Sequence[Any] = ()) -> bytes:
    """Spell an answer of the exchange."""
    return msgspec.json.encode({"code": code, "data": list(data), "msg": message})


def rate_limit_reply(sequence: int) -> Reply:
    """Return the exchange's answer to too many requests, the HTTP status by turns."""
    if sequence % 2:
        return Reply(
            200, envelope("50011", "Rate limit reached. Please refer to API document."), "application/json", "50011"
        )
    return Reply(429, envelope("50011", "Too Many Requests"), "application/json", "50011")


def read_faults(text: bytes) -> list[Fault]:
    """Read one fault or a list of them, refusing what no kind would understand."""
    try:
        decoded = msgspec.json.decode(text, type=list[Fault] | Fault)
    except msgspec.MsgspecError as error:
        raise BadFaultError(f"not a fault: {error}") from error
    faults = decoded if isinstance(decoded, list) else [decoded]
    for fault in faults:
        _check(fault)
    return faults


def _check(fault: Fault) -> None:
    known = [*CONNECTION_KINDS, *PUSH_KINDS, *REQUEST_KINDS]
    if fault.kind not in known:
        raise BadFaultError(f"no fault is called {fault.kind!r}; there are {', '.join(known)}")
    if fault.kind in CONNECTION_KINDS and (fault.inst_id or fault.endpoint):
        raise BadFaultError(f"{fault.kind} cuts connections: filter by `path`, not by instId or endpoint")
    if fault.kind == "silence" and fault.duration is None:
        raise BadFaultError("silence needs a `duration` in seconds")
    begin_ms(fault, 0)


def begin_ms(fault: Fault, now_ms: int) -> int:
    """Return the simulated instant at which a fault begins."""
    if isinstance(fault.at, str):
        try:
            instant = datetime.fromisoformat(fault.at)
        except ValueError as error:
            raise BadFaultError(f"`at` is neither ms nor an ISO time: {fault.at!r}") from error
        return int((instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp() * 1000)
    return now_ms if fault.at is None else fault.at


class _Armed:
    """A fault in the plan: when it begins, how often it happened, when it is over."""

    def __init__(self, fault: Fault, now_ms: int) -> None:
        self.fault = fault
        self.begin_ms = begin_ms(fault, now_ms)
        self.happened = 0
        self.began_wall: float | None = None
        self.left = fault.count if fault.count is not None else None if fault.duration is not None else 1

    def is_on(self, now_ms: int, wall: float) -> bool:
        if now_ms < self.begin_ms or self.is_over(now_ms, wall):
            return False
        if self.began_wall is None:
            self.began_wall = wall
        return True

    def is_over(self, now_ms: int, wall: float) -> bool:
        if self.left is not None and self.happened >= self.left:
            return True
        if self.fault.duration is None:
            return False
        if self.fault.clock == "sim":
            return now_ms >= self.begin_ms + self.fault.duration * 1000
        return self.began_wall is not None and wall >= self.began_wall + self.fault.duration


class FaultPlan:
    """The armed faults and the record of what they did; `now_ms` is simulated time, `wall` monotonic seconds."""

    def __init__(self) -> None:
        self._armed: list[_Armed] = []
        self.log: deque[dict[str, Any]] = deque(maxlen=LOG_LENGTH)

    def add(self, fault: Fault, now_ms: int) -> None:
        """Arm a fault."""
        self._armed.append(_Armed(fault, now_ms))

    def cuts(self, connections: Sequence[tuple[str, Path]], now_ms: int, wall: float) -> list[tuple[str, str]]:
        """Return which of the open connections (id, path) are cut now, and how."""
        if not self._armed:
            return []
        done: list[tuple[str, str]] = []
        for armed in self._on(CONNECTION_KINDS, now_ms, wall):
            fault = armed.fault
            for conn_id, path in connections:
                if fault.path not in (None, path) or (fault.count is not None and armed.happened >= fault.count):
                    continue
                armed.happened += 1
                done.append((conn_id, fault.kind))
                self._record(fault, now_ms, path=path, connId=conn_id)
            if fault.duration is None:
                self._armed.remove(armed)
        return done

    def deliveries(self, push: Push, now_ms: int, wall: float) -> list[Delivery]:
        """Return what leaves in place of a push."""
        deliveries = [Delivery(0, push.payload)]
        if not self._armed:
            return deliveries
        for armed in self._on(PUSH_KINDS, now_ms, wall):
            fault = armed.fault
            if fault.path not in (None, push.path) or fault.inst_id not in (None, push.inst_id):
                continue
            changed = PUSH_KINDS[fault.kind](fault, push, deliveries)
            if changed is None:
                continue
            deliveries = changed
            armed.happened += 1
            self._record(fault, now_ms, path=push.path, instId=push.inst_id, push=push.kind)
        return deliveries

    def is_mute(self, path: Path, now_ms: int, wall: float) -> bool:
        """Tell whether a whole path is silent, acknowledgements included; pongs always go out."""
        return any(
            armed.fault.path in (None, path) and armed.fault.inst_id is None
            for armed in self._on(("silence",), now_ms, wall)
        )

    def reply(self, endpoint: str, inst_id: str | None, now_ms: int, wall: float) -> Reply | None:
        """Return the answer given instead of the real one, if any."""
        if not self._armed:
            return None
        for armed in self._on(REQUEST_KINDS, now_ms, wall):
            fault = armed.fault
            if not endpoint.endswith(fault.endpoint or "") or fault.inst_id not in (None, inst_id):
                continue
            armed.happened += 1
            self._record(fault, now_ms, endpoint=endpoint, instId=inst_id)
            return REQUEST_KINDS[fault.kind](fault, armed.happened)
        return None

    def _on(self, kinds: Any, now_ms: int, wall: float) -> list[_Armed]:
        self._armed = [armed for armed in self._armed if not armed.is_over(now_ms, wall)]
        return [armed for armed in self._armed if armed.fault.kind in kinds and armed.is_on(now_ms, wall)]

    def _record(self, fault: Fault, now_ms: int, **where: Any) -> None:
        wall_time = datetime.now(UTC).isoformat()
        entry = {"kind": fault.kind, "now_ms": now_ms, "wall": wall_time}
        self.log.append(entry | {name: value for name, value in where.items() if value is not None})
