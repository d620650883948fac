"""What a chaos run says of itself."""

from proofs.chaos.faults import Happened
from proofs.chaos.outcome import Outcome, around, report
from proofs.chaos.plan import Plan
from proofs.judges.recorded import RecordedTally
from proofs.judges.stored import Difference, StoredTally

AT = 1_772_323_200_000


def a_plan(**changes: object) -> Plan:
    fields = {"seed": 3, "minutes": 2.0, "symbols": 12, "members": 10, "speed": 300.0, "rate": 0.5}
    return Plan(**(fields | {"backfill_days": 1, "settle_seconds": 60.0} | changes))  # type: ignore[arg-type]


def a_clean_outcome() -> Outcome:
    return Outcome(StoredTally(candles=10), {"bins": RecordedTally(values=50)})


def test_a_clean_run_passes_and_nothing_compared_does_not():
    assert a_clean_outcome().passed
    assert not Outcome().passed


def test_one_difference_one_death_or_something_not_healed_fails():
    lost, dead, sick, bins = (a_clean_outcome() for _ in range(4))
    lost.raw.blame("lost", [Difference(AT, "A", "lost", "nothing", "[]")])
    dead.deaths.append("exited: writer (exit status 1; not expected)")
    sick.unhealed["minutes"] = 1
    bins.qlib["bins"].missing = 1

    assert not any(outcome.passed for outcome in (lost, dead, sick, bins))


def test_report_names_the_command_that_repeats_it():
    values = report(a_plan(without="redis, disk"), a_clean_outcome(), 12.34)

    assert values["command"] == (
        'make chaos SEED=3 MINUTES=2 SYMBOLS=12 MEMBERS=10 SPEED=300 RATE=0.5 WITHOUT="redis, disk"'
    )
    assert values["passed"] is True
    assert values["seconds"] == 12.3


def test_what_lasted_around_a_difference_is_listed_in_order():
    outcome = a_clean_outcome()
    outcome.log = [
        Happened("stop writer", AT - 500_000, AT - 10_000, "", "pid 7"),
        Happened("kill api", AT + 60_001, AT + 60_001, "", "too late"),
    ]
    outcome.wire_log = [{"kind": "drop", "now_ms": AT + offset} for offset in (-60_000, -1, 1, 60_001)]

    assert around(outcome, AT, 60_000) == [
        "2026-02-28 23:51:40  stop writer: pid 7",
        "2026-02-28 23:59:00  drop, 2 times",
        "2026-03-01 00:00:00  drop, 1 times",
    ]


def test_disk_faults_take_no_part_where_there_is_no_small_disk():
    assert "disk full" in a_plan().kinds
    assert "disk full" not in a_plan(has_disk=False).kinds
    assert all("redis" not in argument for argument in a_plan().market())
