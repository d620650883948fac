"""The kinds of faults, one entry each, and how a script of faults is read.

A fault begins at its instant and is over when it has happened `count` times or `duration` has passed; with neither
it happens once. What a kind does stands in `effects`; when it is done is decided by the plan.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from random import Random
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import asdict, replace

from services.simulator.engine.odd_minutes import IMPOSSIBLE, VARIANTS
from services.simulator.faults import bulk, effects, odd
from services.simulator.faults.fault import REST_PATHS, SPELLED, Fault, begin_ms

LONGEST_SECONDS = 366 * 86_400.0
LARGEST_BYTES = 1_500_000_000
ERROR_STATUSES = range(400, 600)
REDIRECT_STATUSES = range(301, 309)


class BadFaultError(ValueError):
    """A fault that is not understood; the message says what to write instead."""


class Kind(NamedTuple):
    """One kind of fault."""

    what: str
    chaos: Callable[[Random], dict[str, Any]]
    """Draws the arguments of a seeded fault; an instrument is chosen for those that need one."""
    takes: frozenset[str] = frozenset()
    """What its script may say beside at, duration, clock and count."""
    needs: frozenset[str] = frozenset()
    variants: tuple[str, ...] = ()
    """Ways of going wrong, the default first."""
    delay: float | None = None
    """Seconds, unless the script says so."""
    push: effects.PushEffect | None = None
    request: effects.RequestEffect | None = None
    ask: Callable[[Mapping[str, str]], Mapping[str, str]] | None = None
    """Changes what is asked for, before there is an answer."""
    subscribe: effects.SubscribeEffect | None = None
    lacks: Callable[[Fault], str | None] | None = None
    """Says what a script has forgotten that only some variants need."""


def _kind(what: str, chaos: Callable[[Random], dict[str, Any]], *takes: str, **fields: Any) -> Kind:
    implied = {"variant": fields.get("variants"), "delay": fields.get("delay") is not None}
    implied |= {"where": fields.get("push") and fields.get("request")}
    fields["needs"] = frozenset(fields.get("needs", ()))
    own = {*takes, *(name for name, is_taken in implied.items() if is_taken)}
    return Kind(what, chaos, frozenset(own | fields["needs"]) - {"duration"}, **fields)


def _some(most: int) -> Callable[[Random], dict[str, Any]]:
    return lambda dice: {"count": dice.randint(1, most)}


def _wall(shortest: float, longest: float, **more: Any) -> Callable[[Random], dict[str, Any]]:
    return lambda dice: {"duration": round(dice.uniform(shortest, longest), 1), "clock": "wall", **more}


def _vary(draw: Callable[[Random], dict[str, Any]], **choices: Collection[Any]) -> Callable[[Random], dict[str, Any]]:
    return lambda dice: draw(dice) | {name: dice.choice(list(values)) for name, values in choices.items()}


def _odd(dice: Random) -> dict[str, Any]:
    """Draw one odd row, near the beginning of a list; what is asked for, or pushed, the next time is right."""
    chosen: dict[str, Any] = dict(dice.choice(_ODD_ROWS))
    if chosen.get("endpoint", "").endswith(_LISTS):
        chosen["row"] = dice.randrange(_FIRST_ROWS)
    if "value" in chosen:
        chosen["value"] = msgspec.Raw(json.dumps(chosen["value"]).encode())
    return {"count": 1, "variant": dice.choice(["replaced", "inserted"]), **chosen}


_LISTS = ("public/instruments", "public/funding-rate")
_FIRST_ROWS = 4
"""Every market's lists have as many."""
_ODD_ROWS: Sequence[Mapping[str, Any]] = (
    {"where": "rest", "endpoint": "public/instruments", "field": "listTime", "value": "99999999999999999"},
    {"where": "rest", "endpoint": "public/instruments", "field": "listTime", "value": "TBD"},
    {"where": "rest", "endpoint": "public/instruments", "field": "instId", "value": None},
    {"where": "rest", "endpoint": "public/instruments", "field": "instId"},
    {"where": "rest", "endpoint": "public/instruments", "value": ["BTC-USDT-SWAP"]},
    {"where": "rest", "endpoint": "public/instruments", "field": "state", "value": "expired"},
    {"where": "rest", "endpoint": "public/instruments", "field": "state", "value": "suspend"},
    {"where": "rest", "endpoint": "public/instruments", "field": "state", "value": ""},
    {"where": "rest", "endpoint": "public/funding-rate", "field": "fundingTime", "value": "17898336000000000"},
    {"where": "rest", "endpoint": "public/funding-rate", "field": "prevFundingTime", "value": "0"},
    {"where": "rest", "endpoint": "public/funding-rate", "value": None},
    {"where": "rest", "endpoint": "public/funding-rate-history", "field": "realizedRate", "value": "n/a"},
    {"where": "rest", "endpoint": "public/funding-rate-history", "field": "fundingTime", "value": "0"},
    {"where": "rest", "endpoint": "public/funding-rate-history", "field": "instId"},
    {"where": "rest", "endpoint": "market/candles", "value": [5]},
    {"where": "rest", "endpoint": "market/history-candles", "value": "row"},
    {"where": "push", "push": "confirm", "value": 5},
    {"where": "push", "push": "confirm", "field": 4, "value": {"close": None}},
    {"where": "push", "push": "forming", "field": 0, "value": "99999999999999999"},
    {"where": "push", "push": "funding", "field": "nextFundingTime"},
    {"where": "push", "push": "funding", "field": "nextFundingRate", "value": None},
    {"where": "push", "push": "funding", "field": "prevFundingTime", "value": "0"},
    {"where": "push", "push": "funding", "field": "fundingTime", "value": 1.5},
)
"""What chaos makes odd: rows that cannot be believed, of which the right ones come again."""


_BOTH = ("public", "business")
_WRONG = ("high_low", "negative", "off_grid", "future")

CONNECTION_KINDS: Mapping[str, Kind] = {
    "drop": _kind("TCP abort without a close frame", _vary(_some(2), path=_BOTH), "path"),
    "close": _kind("clean close 1000", _vary(_some(2), path=_BOTH), "path"),
    "notice": _kind(
        "64008 `delay` seconds (on `clock`) before a close 1000; on /public, as documented, unless `path` says so",
        _vary(_some(2), delay=(0.5, 1.0, 2.0), clock=("wall",)),
        "path",
        delay=60.0,
    ),
    "refuse": _kind("new connections are refused: 503, or a reset", _some(3), "path", variants=("http", "tcp")),
    "slow_socket": _kind(
        "everything that is sent leaves `delay` seconds (on `clock`) late, in order",
        _vary(_wall(1, 5), delay=(0.3, 1.0, 3.0)),
        "path",
        delay=2.0,
        needs=("duration",),
    ),
}
"""What happens to connections. drop, close, notice: with a duration, also to those that are made during it."""

PUSH_KINDS: Mapping[str, Kind] = {
    "silence": _kind(
        "nothing is pushed, pongs go on",
        _vary(_wall(0.5, 4), path=_BOTH),
        "path",
        "instId",
        push=effects.silence,
        needs=("duration",),
    ),
    "lost_confirm": _kind(
        "the row that closes a minute is lost", _some(5), "path", "instId", push=effects.lost_confirm
    ),
    "late_confirm": _kind(
        "the row that closes a minute is late",
        _vary(_some(5), delay=(5, 30, 90, 600)),
        "path",
        "instId",
        push=effects.late_confirm,
        delay=5.0,
    ),
    "duplicate_confirm": _kind(
        "the row that closes a minute comes twice", _some(5), "path", "instId", push=effects.duplicate_confirm
    ),
    "out_of_order": _kind(
        "a closed row comes after forming rows of the next minute, or after its closed row",
        _vary(_some(4), variant=("forming", "swapped")),
        "path",
        "instId",
        push=effects.out_of_order,
        variants=("forming", "swapped"),
        delay=20.0,
    ),
    "old_row": _kind(
        "a row is pushed again `delay` seconds later",
        _vary(_some(3), variant=("forming", "confirm"), delay=(70, 150, 900)),
        "path",
        "instId",
        push=effects.old_row,
        variants=("forming", "confirm"),
        delay=150.0,
    ),
    "garbage": _kind(
        "a broken frame comes in front of a push",
        _vary(_some(2), variant=("text", "truncated", "empty_rate")),
        "path",
        "instId",
        push=effects.garbage,
        variants=("text", "truncated", "empty_rate"),
    ),
    "impossible": _kind(
        "a candle that cannot be comes in front of the right one",
        _vary(_some(3), variant=_WRONG, where=("push", "rest")),
        "path",
        "instId",
        "endpoint",
        push=effects.impossible_push,
        request=effects.impossible_answer,
        variants=_WRONG,
    ),
    "unknown_fields": _kind(
        "there are more keys and columns than documented",
        _vary(_some(5), where=("push", "rest")),
        "path",
        "instId",
        "endpoint",
        push=effects.unknown_fields_push,
        request=effects.unknown_fields_answer,
    ),
    "empty_fields": _kind(
        'a funding row has "" in most fields',
        _vary(_some(3), where=("push", "rest")),
        "path",
        "instId",
        "endpoint",
        push=effects.empty_fields_push,
        request=effects.empty_fields_answer,
    ),
    "odd_value": _kind(
        "rows are odd: `value`, any JSON, stands in `field`, or for the row; without `value` the field is missing",
        _odd,
        "path",
        "push",
        "instId",
        "endpoint",
        "row",
        "field",
        "value",
        push=odd.odd_value_push,
        request=odd.odd_value_answer,
        variants=("replaced", "inserted"),
        lacks=lambda fault: "`field` or `value`" if fault.field is None and fault.value is msgspec.UNSET else None,
    ),
    "two_rows": _kind(
        "a frame holds a forming row of a minute and the one that closes it",
        _vary(_some(4), variant=("closed_last", "closed_first")),
        "path",
        "instId",
        push=odd.two_rows,
        variants=("closed_last", "closed_first"),
    ),
    "huge_frame": _kind(
        "a frame of `size` bytes comes in front of a push", _some(1), "path", "instId", "size", push=bulk.huge_frame
    ),
    "flood": _kind(
        f"{bulk.FLOOD_ROWS} bad rows, no two alike, with a value of `size` bytes come in front of the right one",
        _vary(_some(2), where=("push", "rest"), size=(100, 20_000)),
        "path",
        "push",
        "instId",
        "endpoint",
        "size",
        push=bulk.flood_push,
        request=bulk.flood_answer,
    ),
}
"""What happens to pushes; some of it happens to answers instead, where the script says `rest`."""

REQUEST_KINDS: Mapping[str, Kind] = {
    "http_error": _kind(
        "an answer fails: `status`, as the exchange's JSON or as a page in `html`",
        _vary(_some(3), status=(500, 502, 503, 429), html=(False, True)),
        "endpoint",
        "instId",
        "status",
        "html",
        request=effects.http_error,
    ),
    "rate_limit": _kind("50011", _some(3), "endpoint", "instId", request=effects.rate_limit),
    "slow": _kind(
        "an answer leaves `delay` seconds (on `clock`) late",
        _vary(_some(3), delay=(0.5, 2.0), clock=("wall",)),
        "endpoint",
        "instId",
        request=effects.slow,
        delay=5.0,
    ),
    "timeout": _kind(
        "there is no answer until the client gives up", _some(1), "endpoint", "instId", request=effects.timeout
    ),
    "empty": _kind(
        "a page of candles is empty, or lacks rows",
        _vary(_some(3), variant=("page", "holes")),
        "endpoint",
        "instId",
        request=effects.empty,
        variants=("page", "holes"),
    ),
    "unknown": _kind("51001 for an instrument that is there", _some(3), "endpoint", "instId", request=effects.unknown),
    "thin_list": _kind(
        "the list of instruments or of all funding rates is empty, truncated to a `share`, lacks rows or doubles them",
        _vary(_some(2), variant=("empty", "truncated", "lacks", "doubled"), share=(0.05, 1 / 3, 0.6)),
        "endpoint",
        "row",
        "share",
        request=odd.thin_list,
        variants=("empty", "truncated", "lacks", "doubled"),
    ),
    "time_error": _kind("/public/time fails", _some(3), "status", "html", request=effects.time_error),
    "odd_time": _kind(
        "/public/time has no row, none that is a time, or one that is `seconds` ahead; all rows stay true",
        _vary(
            _wall(0.5, 4), variant=("empty", "blank", "renamed", "jump"), seconds=(21_600.0, -21_600.0, 17_280_000.0)
        ),
        "seconds",
        request=odd.odd_time,
        variants=("empty", "blank", "renamed", "jump"),
        lacks=lambda fault: "`seconds`" if fault.variant == "jump" and fault.seconds is None else None,
    ),
    "huge_answer": _kind(
        "an answer has `size` bytes, as it is or packed",
        _vary(_some(1), variant=("plain", "packed")),
        "endpoint",
        "instId",
        "size",
        request=bulk.huge_answer,
        variants=("plain", "packed"),
    ),
    "redirect": _kind(
        "an answer leads to another host, `target`",
        _some(1),
        "endpoint",
        "instId",
        "status",
        "target",
        request=bulk.redirect,
    ),
    "stuck_cursor": _kind(
        "a history ignores its cursor: the newest page again and again",
        _some(1),
        "endpoint",
        "instId",
        ask=bulk.without_cursor,
    ),
}
"""What happens to answers over REST."""

SUBSCRIBE_KINDS: Mapping[str, Kind] = {
    "reject": _kind("60018 for a channel that is there", _some(2), "path", "instId", subscribe=effects.reject),
    "lost_ack": _kind(
        "a subscription is not acknowledged; its data comes, or not",
        _vary(_some(2), variant=("data", "silent")),
        "path",
        "instId",
        subscribe=effects.lost_ack,
        variants=("data", "silent"),
    ),
    "deaf": _kind(
        "a subscription is acknowledged, and no data comes until it is renewed",
        _some(2),
        "path",
        "instId",
        subscribe=effects.deaf,
    ),
}
"""What happens to subscriptions."""

EXCHANGE_KINDS: Mapping[str, Kind] = {
    "corrected": _kind(
        "a minute that closed `delay` simulated seconds ago gets other figures, for good",
        _vary(lambda _dice: {}, delay=(0, 60, 120)),
        delay=60.0,
        needs=("instId",),
    ),
    "odd_candle": _kind(
        "the minute open at `at` closes with prices that cannot be (tenfold: can), for good or until `duration` after",
        _vary(_wall(1, 8), variant=IMPOSSIBLE),
        variants=VARIANTS,
        needs=("instId",),
    ),
    "late_minute": _kind(
        "the minute open at `at` is not closed, and in no page, until `duration` after its end; then it is as it was",
        _wall(1, 8),
        needs=("instId", "duration"),
    ),
    "maintenance": _kind(
        "`delay` seconds after a notice all is closed and 50001; the minutes of it exist (blind), or never do (halt); "
        "elsewhere: of another `serviceType` or `env`, it is announced and nothing more",
        _vary(_wall(0.5, 3), variant=("blind", "halt", "elsewhere"), delay=(0.0, 0.5)),
        "serviceType",
        "env",
        variants=("blind", "halt", "elsewhere"),
        delay=60.0,
        needs=("duration",),
    ),
}
"""What happens to the exchange itself."""

KINDS: Mapping[str, Kind] = {
    **CONNECTION_KINDS,
    **PUSH_KINDS,
    **REQUEST_KINDS,
    **SUBSCRIBE_KINDS,
    **EXCHANGE_KINDS,
}

ALWAYS_TAKEN = frozenset({"kind", "at", "duration", "clock", "count"})


def read_faults(text: bytes, inst_ids: Collection[str] | None = None) -> list[Fault]:
    """Read one fault or a list of them, refusing what no kind, or no instrument of these, would understand."""
    try:
        decoded = msgspec.json.decode(text, type=list[Fault] | Fault)
    except msgspec.MsgspecError as error:
        raise BadFaultError(f"not a fault: {error}") from error
    faults = decoded if isinstance(decoded, list) else [decoded]
    for fault in faults:
        if inst_ids is not None and fault.inst_id not in (None, *inst_ids):
            raise BadFaultError(f"no instrument is called {fault.inst_id!r}")
    return [resolved(fault) for fault in faults]


def resolved(fault: Fault) -> Fault:
    """Return a fault with what its kind does by default filled in. Raises BadFaultError."""
    _check(fault)
    kind = KINDS[fault.kind]
    variant = fault.variant or (kind.variants[0] if kind.variants else None)
    return replace(fault, variant=variant, delay=kind.delay if fault.delay is None else fault.delay)


def _check(fault: Fault) -> None:
    kind = KINDS.get(fault.kind)
    if kind is None:
        raise BadFaultError(f"no fault is called {fault.kind!r}; there are {', '.join(KINDS)}")
    _check_names(fault, kind)
    _check_figures(fault)
    try:
        begin_ms(fault, 0)
    except ValueError as error:
        raise BadFaultError(str(error)) from error


def _check_names(fault: Fault, kind: Kind) -> None:
    said = _said(fault)
    elsewhere = {"path", "push"} if fault.where == "rest" else {"endpoint"} if "where" in kind.takes else set()
    if strange := said - ALWAYS_TAKEN - (kind.takes - elsewhere):
        understood = ", ".join(f"`{name}`" for name in sorted(kind.takes - elsewhere)) or "nothing more"
        raise BadFaultError(f"{fault.kind} does not take `{min(strange)}`; it takes {understood}")
    if lacking := kind.needs - said:
        unit = " in seconds" if "duration" in lacking else ""
        raise BadFaultError(f"{fault.kind} needs `{min(lacking)}`{unit}")
    if kind.lacks and (forgotten := kind.lacks(fault)):
        raise BadFaultError(f"{fault.kind} needs {forgotten}")
    if fault.variant not in (None, *kind.variants):
        raise BadFaultError(f"{fault.kind} has no variant {fault.variant!r}; there are {', '.join(kind.variants)}")
    if fault.endpoint is not None and not any(path.endswith(fault.endpoint or "?") for path in REST_PATHS):
        raise BadFaultError(f"no endpoint ends with {fault.endpoint!r}; there are {', '.join(REST_PATHS)}")


def _said(fault: Fault) -> set[str]:
    """Return the arguments that a script gives, by their names in JSON."""
    nothing = (None, False, msgspec.UNSET)
    return {SPELLED.get(name, name) for name, value in asdict(fault).items() if not any(value is no for no in nothing)}


def _check_figures(fault: Fault) -> None:
    if fault.count is not None and fault.count < 1:
        raise BadFaultError(f"`count` must be 1 or more, not {fault.count}")
    if fault.duration is not None and not 0 < fault.duration <= LONGEST_SECONDS:
        raise BadFaultError(f"`duration` must be seconds above 0 and up to a year, not {fault.duration}")
    if fault.delay is not None and not 0 <= fault.delay <= LONGEST_SECONDS:
        raise BadFaultError(f"`delay` must be seconds from 0 up to a year, not {fault.delay}")
    if fault.size is not None and not 1 <= fault.size <= LARGEST_BYTES:
        raise BadFaultError(f"`size` must be bytes from 1 to {LARGEST_BYTES:,}, not {fault.size}")
    if fault.share is not None and not 0 <= fault.share <= 1:
        raise BadFaultError(f"`share` must be from 0 to 1, not {fault.share}")
    if fault.seconds is not None and not abs(fault.seconds) <= LONGEST_SECONDS:
        raise BadFaultError(f"`seconds` must be at most a year ahead or behind, not {fault.seconds}")
    _check_status(fault)


def _check_status(fault: Fault) -> None:
    if fault.kind == "redirect":
        if fault.status is not None and fault.status not in REDIRECT_STATUSES:
            raise BadFaultError(f"`status` must be a redirection, 301 to 308, not {fault.status}")
    elif fault.status is not None and fault.status not in ERROR_STATUSES:
        raise BadFaultError(f"`status` must be an HTTP error, 400 to 599, not {fault.status}")
