"""The plan of faults: which are armed, when they act, and the record of what they did."""

import itertools
import json
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, TextIO

import msgspec

from services.simulator.engine.maintenance import COPY_TRADING, PRODUCTION, TRADING, Window, called_off
from services.simulator.engine.market import MINUTE_MS
from services.simulator.engine.odd_minutes import OddMinute, odd_candle, odd_minute
from services.simulator.faults.fault import Asked, Delivery, Fault, Outcome, Path, Push, Reply, begin_ms
from services.simulator.faults.kinds import KINDS, PUSH_KINDS, REQUEST_KINDS, SUBSCRIBE_KINDS, resolved
from services.simulator.faults.odd import CONFIRM_COLUMN

LOG_LENGTH = 10_000
"""Applied faults that are remembered."""

STATUS_ENDPOINT = "/system/status"
"""Answers during a maintenance, too: it is where one asks about it."""

_MINUTE_KINDS = ("odd_candle", "late_minute")


@dataclass(slots=True)
class _Cause:
    """What was asked for; a maintenance is several faults of one cause."""

    kind: str
    by_chaos: bool
    happened: bool = False


@dataclass(eq=False, slots=True)
class _Armed:
    """A fault in the plan: when it begins, how often it happened, when it is over."""

    fault: Fault
    begin_ms: int
    cause: _Cause
    number: int
    """In the order of arming."""
    happened: int = 0
    began_wall: float | None = None
    met: set[str] = field(default_factory=set)
    """Connections that it has already reached, for what reaches each of them once."""

    @property
    def left(self) -> int | None:
        """How often it happens at most."""
        if self.fault.count is not None:
            return self.fault.count
        return None if self.fault.duration is not None else 1

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

    def concerns(self, path: Path, inst_id: str | None = None) -> bool:
        """Return whether the filters let a path and an instrument through."""
        return self.fault.path in (None, path) and self.fault.inst_id in (None, inst_id)


class Cut(NamedTuple):
    """A connection that ends: at once, or after a notice of so many wall seconds."""

    conn_id: str
    kind: str
    seconds: float = 0.0


class FaultPlan:
    """The armed faults and the record of what they did; `now_ms` is simulated time, `wall` monotonic seconds."""

    def __init__(self, speed: float = 1.0, log_file: TextIO | None = None) -> None:
        self._speed = speed
        self._log_file = log_file
        self._armed: list[_Armed] = []
        self._numbers = itertools.count()
        self._by_kind: dict[str, list[_Armed]] = {}
        self._minutes: dict[str, dict[int, tuple[OddMinute, _Armed]]] = {}
        self.windows: list[Window] = []
        """Maintenance that is announced, under way or over."""
        self.version = 0
        """Goes up when the windows change."""
        self.log: deque[dict[str, Any]] = deque(maxlen=LOG_LENGTH)
        self.chaos_armed: Counter[str] = Counter()
        self.chaos_happened: Counter[str] = Counter()

    # Arming

    def add(self, fault: Fault, now_ms: int, *, by_chaos: bool = False) -> None:
        """Arm a fault that was read, or drawn by chaos."""
        cause = _Cause(fault.kind, by_chaos)
        self.chaos_armed[fault.kind] += by_chaos
        if fault.kind == "maintenance":
            self._maintain(fault, now_ms, cause)
        elif fault.kind in _MINUTE_KINDS:
            self._make_odd(fault, now_ms, cause)
        else:
            self._arm(fault, now_ms, cause)

    def _arm(self, fault: Fault, now_ms: int, cause: _Cause) -> None:
        armed = _Armed(fault, begin_ms(fault, now_ms), cause, next(self._numbers))
        self._armed.append(armed)
        self._by_kind.setdefault(fault.kind, []).append(armed)

    def _maintain(self, fault: Fault, now_ms: int, cause: _Cause) -> None:
        """Arm the faults that a maintenance is made of; one that is not planned ahead begins after its notice."""
        lead_ms, lasts_ms = self._simulated_ms(fault, fault.delay or 0), self._simulated_ms(fault, fault.duration or 0)
        planned_ms = begin_ms(fault, now_ms)
        begin = planned_ms if planned_ms > now_ms else now_ms + lead_ms
        is_elsewhere = fault.variant == "elsewhere"
        service = fault.service_type or (COPY_TRADING if is_elsewhere and fault.env is None else TRADING)
        span = (now_ms, begin, begin + lasts_ms)
        window = Window(*span, fault.variant == "halt", cause.by_chaos, service, fault.env or PRODUCTION)
        self.windows.append(window)
        self.version += 1
        if is_elsewhere:
            announced = _Armed(fault, begin, cause, next(self._numbers))
            self._happened(announced, now_ms, begin_ms=begin, serviceType=window.service_type, env=window.env)
            return
        notice_ms, seconds = max(now_ms, begin - lead_ms), lasts_ms / 1000
        if lead_ms:
            self._arm(resolved(Fault("notice", notice_ms, delay=(begin - notice_ms) / 1000)), now_ms, cause)
        for kind in ("close", "refuse", "http_error"):
            self._arm(resolved(Fault(kind, begin, duration=seconds)), now_ms, cause)

    def _make_odd(self, fault: Fault, now_ms: int, cause: _Cause) -> None:
        lasts_ms = None if fault.duration is None else self._simulated_ms(fault, fault.duration)
        begin = begin_ms(fault, now_ms)
        minute = odd_minute(begin, fault.variant, lasts_ms)
        armed = _Armed(fault, begin, cause, next(self._numbers))
        self._minutes.setdefault(fault.inst_id or "", {})[minute.open_ms] = (minute, armed)

    def _simulated_ms(self, fault: Fault, seconds: float) -> int:
        return int(seconds * 1000 * (self._speed if fault.clock == "wall" else 1.0))

    def stop_chaos(self, now_ms: int) -> None:
        """Take back what chaos has armed; its maintenance ends, and its minutes are as they were."""
        for armed in [armed for armed in self._armed if armed.cause.by_chaos]:
            self._forget(armed)
        for inst_id, minutes in self._minutes.items():
            self._minutes[inst_id] = {at: odd for at, odd in minutes.items() if not odd[1].cause.by_chaos}
        self.windows[:] = called_off(self.windows, now_ms)
        self.version += 1

    def _forget(self, armed: _Armed) -> None:
        self._armed.remove(armed)
        self._by_kind[armed.fault.kind].remove(armed)

    def armed_now(self) -> int:
        """Return how many faults wait or last."""
        return len(self._armed)

    # Connections

    def cuts(self, connections: Sequence[tuple[str, Path]], now_ms: int, wall: float) -> list[Cut]:
        """Return which of the open connections (id, path) are cut now, and how."""
        done: list[Cut] = []
        for armed in list(self._on(("drop", "close", "notice"), now_ms, wall)):
            for conn_id, path in connections:
                enough = armed.fault.count is not None and armed.happened >= armed.fault.count
                if enough or conn_id in armed.met or not _reaches(armed, path):
                    continue
                armed.met.add(conn_id)
                seconds = self.wall_seconds(armed.fault) if armed.fault.kind == "notice" else 0.0
                done.append(Cut(conn_id, armed.fault.kind, seconds))
                self._happened(armed, now_ms, path=path, connId=conn_id)
            if armed.fault.duration is None:
                self._forget(armed)
        return done

    def refusal(self, path: Path, now_ms: int, wall: float) -> str | None:
        """Return how a new connection is refused (http, tcp), None if it is not."""
        for armed in self._on(("refuse",), now_ms, wall):
            if armed.concerns(path):
                self._happened(armed, now_ms, path=path)
                return armed.fault.variant
        return None

    def lag(self, conn_id: str, path: Path, now_ms: int, wall: float) -> float:
        """Return how many wall seconds late a connection's frames leave."""
        slowest = 0.0
        for armed in self._on(("slow_socket",), now_ms, wall):
            if not armed.concerns(path):
                continue
            slowest = max(slowest, self.wall_seconds(armed.fault))
            if conn_id not in armed.met:
                armed.met.add(conn_id)
                self._happened(armed, now_ms, path=path, connId=conn_id)
        return slowest

    # Pushes, answers, subscriptions

    def deliveries(self, push: Push, now_ms: int, wall: float) -> list[Delivery]:
        """Return what leaves in place of a push; faults add up until nothing is left of it."""
        deliveries = [Delivery(0, push.payload)]
        for armed in self._on(PUSH_KINDS, now_ms, wall):
            fault, effect = armed.fault, PUSH_KINDS[armed.fault.kind].push
            if fault.where == "rest" or effect is None or not armed.concerns(push.path, push.inst_id):
                continue
            changed = effect(fault, push, deliveries, now_ms)
            if changed is not None:
                deliveries = changed
                self._happened(armed, now_ms, path=push.path, instId=push.inst_id, push=push.kind)
            if not deliveries:
                break
        return deliveries

    def is_mute(self, path: Path, now_ms: int, wall: float) -> bool:
        """Return whether a whole path is silent, acknowledgements included; pongs always go out."""
        return any(
            armed.fault.inst_id is None and armed.concerns(path) for armed in self._on(("silence",), now_ms, wall)
        )

    def params(self, asked: Asked, params: Mapping[str, str], wall: float) -> Mapping[str, str]:
        """Return what a request is taken to ask for."""
        for armed in self._on(_ASKING, asked.now_ms, wall):
            ask = KINDS[armed.fault.kind].ask
            changed = ask(params) if ask and _is_asked(armed.fault, asked) else params
            if changed != params:
                params = changed
                self._happened(armed, asked.now_ms, endpoint=asked.endpoint, instId=asked.inst_id)
        return params

    def reply(self, asked: Asked, reply: Reply, wall: float) -> Reply:
        """Return the answer given in place of the real one; faults add up until one of them makes it an error."""
        real = reply
        for armed in self._on(_ANSWERING, asked.now_ms, wall):
            fault, effect = armed.fault, KINDS[armed.fault.kind].request
            is_push = fault.kind in PUSH_KINDS and fault.where != "rest"
            if effect is None or is_push or not _is_asked(fault, asked):
                continue
            if armed.cause.kind == "maintenance" and asked.endpoint.endswith(STATUS_ENDPOINT):
                continue
            counted = asked._replace(sequence=armed.happened + 1, seconds=self.wall_seconds(fault))
            changed = effect(fault, counted, reply)
            if changed is not None:
                reply = changed
                self._happened(armed, asked.now_ms, endpoint=asked.endpoint, instId=asked.inst_id)
            if reply.code != real.code:
                break
        return reply

    def subscription(self, path: Path, channel: str, inst_id: str, now_ms: int, wall: float) -> Outcome:
        """Return how a subscription goes that is in order."""
        for armed in self._on(SUBSCRIBE_KINDS, now_ms, wall):
            effect = SUBSCRIBE_KINDS[armed.fault.kind].subscribe
            if effect is not None and armed.concerns(path, inst_id):
                self._happened(armed, now_ms, path=path, channel=channel, instId=inst_id)
                return effect(armed.fault)
        return Outcome()

    # The exchange

    def corrections(self, correct: Callable[[str, int], bool], now_ms: int, wall: float) -> None:
        """Let `correct` (of an instId and an open time) change the minutes that are to change now."""
        for armed in list(self._on(("corrected",), now_ms, wall)):
            inst_id = armed.fault.inst_id or ""
            closed_ms = int(now_ms - (armed.fault.delay or 0) * 1000) // MINUTE_MS * MINUTE_MS
            if correct(inst_id, closed_ms - MINUTE_MS):
                self._happened(armed, now_ms, instId=inst_id, open_ms=closed_ms - MINUTE_MS)
            self._forget(armed)

    def shown(self, inst_id: str, row: list[str], now_ms: int) -> list[str] | None:
        """Return the candle row that is shown in place of the real one; None: there is none yet."""
        minute, armed = self._minutes.get(inst_id, {}).get(int(row[0]), (None, None))
        if minute is None or armed is None or row[CONFIRM_COLUMN] != "1" or not minute.is_on(now_ms):
            return row
        if not armed.happened:
            self._happened(armed, now_ms, instId=inst_id, open_ms=minute.open_ms)
        return None if minute.variant is None else odd_candle(row, minute.variant)

    def true_row(self, inst_id: str, row: list[str]) -> list[str] | None:
        """Return the closed row that is true of a minute; None where all that is ever shown of it is impossible."""
        minute, _ = self._minutes.get(inst_id, {}).get(int(row[0]), (None, None))
        if minute is None or not (minute.is_refused or minute.is_true):
            return row
        return None if minute.is_refused else odd_candle(row, minute.variant or "")

    # The record

    def wall_seconds(self, fault: Fault) -> float:
        """Return a fault's delay as wall seconds."""
        delay = fault.delay or 0.0
        return delay if fault.clock == "wall" else delay / self._speed

    def _on(self, kinds: Mapping[str, Any] | Sequence[str], now_ms: int, wall: float) -> Iterator[_Armed]:
        """Yield the faults of some kinds that are on, the one armed first first; forget those over."""
        if not self._armed:
            return
        candidates = [armed for kind in kinds for armed in self._by_kind.get(kind, ())]
        for armed in sorted(candidates, key=lambda armed: armed.number):
            if armed.is_over(now_ms, wall):
                self._forget(armed)
            elif armed.is_on(now_ms, wall):
                yield armed

    def _happened(self, armed: _Armed, now_ms: int, **where: Any) -> None:
        fault, cause = armed.fault, armed.cause
        armed.happened += 1
        self.chaos_happened[cause.kind] += cause.by_chaos and not cause.happened
        cause.happened = True
        entry: dict[str, Any] = {"kind": cause.kind, "now_ms": now_ms, "wall": datetime.now(UTC).isoformat()}
        details = {
            "effect": fault.kind if fault.kind != cause.kind else None,
            "variant": fault.variant,
            "row": fault.row,
            "field": fault.field,
            "value": None if fault.value is msgspec.UNSET else bytes(fault.value).decode(),
            "size": fault.size,
            "seconds": fault.seconds,
            "duration": fault.duration,
            "delay": fault.delay,
            "clock": fault.clock if fault.clock != "sim" else None,
        }
        entry |= {name: value for name, value in (details | where).items() if value is not None}
        self.log.append(entry)
        if self._log_file:
            self._log_file.write(json.dumps(entry) + "\n")
            self._log_file.flush()


def _is_asked(fault: Fault, asked: Asked) -> bool:
    """Return whether a request is one of those that a fault is meant for."""
    return asked.endpoint.endswith(fault.endpoint or "") and fault.inst_id in (None, asked.inst_id)


def _reaches(armed: _Armed, path: Path) -> bool:
    """Return whether a cut is meant for a path: a notice is documented for /public alone, unless a script says more."""
    by_default = armed.fault.kind != "notice" or path == "public"
    return armed.fault.path == path or (armed.fault.path is None and by_default)


_ASKING = tuple(name for name, kind in KINDS.items() if kind.ask)
"""Every kind that changes what is asked for."""
_ANSWERING = (*REQUEST_KINDS, *(name for name, kind in PUSH_KINDS.items() if kind.request))
"""Every kind that can change an answer."""
