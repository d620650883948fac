"""What the exchange changed later is audited by hand, and an audit may find nothing else."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from proofs.chaos.audit import Answer, Window, audit, corrected_minutes, read_report, windows_of

MIDNIGHT = 1_772_323_200_000
MINUTE = 60_000


def an_answer(kind: str = "changed", symbol: str = "A_USDT", at: int = MIDNIGHT) -> Answer:
    instant = datetime.fromtimestamp(at / 1000, UTC).isoformat()
    return Answer({"pages": 1, kind: 1}, [{"kind": kind, "symbol": symbol, "at": instant, "fields": {}}], [])


def answering(*answers: Answer) -> Callable[[Window], Answer]:
    left: Iterator[Answer] = iter(answers)
    return lambda _: next(left)


def audited(command: Callable[[Window], Answer]) -> Any:
    window = Window(MIDNIGHT, MIDNIGHT + MINUTE, ("A_USDT",))
    much_later = MIDNIGHT + 10_000 * MINUTE
    return audit(
        [window],
        known={("A_USDT", MIDNIGHT)},
        command=command,
        now_ms=lambda: much_later,
        speed=600,
        pause=lambda _: None,
    )


def test_corrected_minutes_are_read_from_the_fault_log():
    log = [
        {"kind": "drop", "now_ms": MIDNIGHT, "path": "public"},
        {"kind": "corrected", "now_ms": MIDNIGHT + 90_000, "instId": "A-USDT-SWAP", "open_ms": MIDNIGHT},
    ]

    assert corrected_minutes(log) == {("A_USDT", MIDNIGHT)}


def test_minutes_of_the_same_fifth_of_a_day_are_audited_together():
    fifth = 288 * MINUTE
    minutes = [("B", MIDNIGHT + fifth), ("B", MIDNIGHT + fifth - MINUTE), ("A", MIDNIGHT + 2 * MINUTE)]

    assert windows_of(minutes) == [
        Window(MIDNIGHT + 2 * MINUTE, MIDNIGHT + fifth, ("A", "B")),
        Window(MIDNIGHT + fifth, MIDNIGHT + fifth + MINUTE, ("B",)),
    ]


def test_a_minute_that_the_exchange_changed_is_expected():
    found = audited(answering(an_answer()))

    assert found.counts == {"windows": 1, "pages": 1, "changed": 1}
    assert found.unexpected == found.troubles == []


def test_anything_else_that_an_audit_finds_is_not():
    for other in (an_answer(kind="missing"), an_answer(symbol="B_USDT"), an_answer(at=MIDNIGHT + MINUTE)):
        assert len(audited(answering(other)).unexpected) == 1


def test_an_audit_that_came_to_no_result_is_repeated_and_reported_in_the_end():
    trouble = Answer({}, [], ["no answer"])

    assert audited(answering(trouble, an_answer())).troubles == []
    assert audited(lambda _: trouble).troubles == [f"A_USDT {MIDNIGHT}: no answer"]


REPORT = {"pages": 2, "minutes": 3, "repaired": 1, "mismatches": {"changed": 1}, "differences": [{}], "troubles": {}}


def test_report_of_the_command_is_read():
    report = {**REPORT, "troubles": {"TimeoutError": 2}, "until": "2026-03-01T00:01:00+00:00"}

    assert read_report(report, MIDNIGHT + MINUTE) == Answer(
        {"pages": 2, "minutes": 3, "repaired": 1, "changed": 1}, [{}], ["TimeoutError"]
    )


def test_a_window_whose_newest_minutes_were_left_out_is_no_result():
    report = {**REPORT, "until": "2026-03-01T00:01:00+00:00"}

    assert read_report(report, MIDNIGHT + 2 * MINUTE).troubles == ["audited only until 2026-03-01T00:01:00+00:00"]
