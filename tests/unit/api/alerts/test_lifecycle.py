"""Told once, reminded rarely, told to be over: the machine between what is wrong and what is said."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.alerts.conditions import Condition, Judgement
from services.api.alerts.lifecycle import Alert, Patience, message_of, step

BEGIN = datetime(2025, 4, 5, 12, tzinfo=UTC)
PATIENCE = Patience(after_seconds=60, again_seconds=3600, settled_seconds=300)


def wrong(key="down:writer", **changes):
    texts = {"what": f"{key} is wrong", "means": "nothing new is stored", "doing": "it is started again"}
    return Condition(**{"key": key, "severity": "critical", **texts, **changes})


class Story:
    """A machine that is shown one judgement after another, every 15 seconds."""

    def __init__(self, patience=PATIENCE):
        self.alerts, self.now, self.patience, self.told = {}, BEGIN, patience, []

    def see(self, *conditions, times=1, unknown=()):
        for _ in range(times):
            self.alerts, tidings = step(self.alerts, Judgement(conditions, frozenset(unknown)), self.now, self.patience)
            at = (self.now - BEGIN).total_seconds()
            self.told += [(at, "new", alert.key) for alert in tidings.opened]
            self.told += [(at, "still", alert.key) for alert in tidings.reminded]
            self.told += [(at, "over", alert.key) for alert in tidings.recovered]
            self.now += timedelta(seconds=15)
        return tidings


def test_what_lasts_is_told_once_it_has_lasted_and_not_again():
    story = Story()
    story.see(wrong(), times=100)

    assert story.told == [(60, "new", "down:writer")]


def test_what_passes_by_itself_is_not_told():
    story = Story()
    for _ in range(10):
        story.see(wrong(), times=4)
        story.see()

    assert story.told == []
    assert story.alerts == {}


def test_what_cannot_wait_is_told_at_once():
    story = Story()
    story.see(wrong(after_seconds=0.0))

    assert story.told == [(0, "new", "down:writer")]


def test_recovery_is_told_once_it_has_settled_with_how_long_it_lasted():
    story = Story()
    story.see(wrong(), times=9)
    story.see(times=20)
    assert story.told == [(60, "new", "down:writer")]
    tidings = story.see()

    assert story.told[1:] == [(435, "over", "down:writer")]
    assert story.alerts == {}
    message = message_of(tidings, story.now)
    assert message.severity is None
    assert message.title == "qlib-crypto: over: down:writer is wrong"
    assert message.body == "Over: down:writer is wrong\nlasted 2 min, until 2025-04-05 12:02 UTC"


def test_what_flaps_is_told_once():
    story = Story()
    story.see(wrong(), times=9)
    for _ in range(50):
        story.see(times=10)
        story.see(wrong(), times=1)

    assert story.told[0] == (60, "new", "down:writer")
    assert {news for _, news, _ in story.told[1:]} == {"still"}


def test_reminder_comes_once_in_the_time_that_is_set():
    story = Story()
    story.see(wrong(), times=4 * 130)

    assert story.told == [(60, "new", "down:writer"), (3660, "still", "down:writer"), (7260, "still", "down:writer")]


def test_no_reminder_where_none_is_wanted():
    story = Story(Patience(after_seconds=0, again_seconds=0))
    story.see(wrong(), times=4 * 60 * 50)

    assert len(story.told) == 1


def test_not_knowing_is_no_recovery():
    story = Story()
    story.see(wrong("problem:writer:disk"), times=9)
    story.see(wrong("down:writer"), times=100, unknown={"problem:writer"})

    assert [news[1:] for news in story.told] == [("new", "problem:writer:disk"), ("new", "down:writer")]
    assert story.alerts["problem:writer:disk"].gone is None


def test_what_shrinks_is_waited_for():
    story = Story()
    for missing in range(5000, 0, -1):
        story.see(wrong("gaps", amount=missing))
    assert story.told == []

    story.see(wrong("gaps", amount=1), times=5)
    assert [news[1:] for news in story.told] == [("new", "gaps")]


def test_what_stays_although_it_goes_up_and_down_is_told():
    story = Story()
    for _ in range(4):
        story.see(wrong("gaps", amount=50))
        story.see(wrong("gaps", amount=40))

    assert [news[1:] for news in story.told] == [("new", "gaps")]


def test_everything_of_one_evaluation_is_one_message_the_worst_first():
    story = Story(Patience(after_seconds=0, settled_seconds=0))
    story.see(wrong("old"))
    tidings = story.see(wrong("mild", severity="warning", todo="look"), wrong("grave", lasted_seconds=600))

    message = message_of(tidings, story.now)

    assert message.severity == "critical"
    assert message.title == "qlib-crypto: 2 new, 1 over"
    grave, mild, old = message.body.split("\n\n")
    assert grave.splitlines() == [
        "grave is wrong",
        "since 2025-04-05 11:50 UTC (10 min), critical: nothing new is stored",
        "The system: it is started again",
        "To do: nothing",
    ]
    assert mild.splitlines()[-1] == "To do: look"
    assert old.startswith("Over: old is wrong")


def test_nothing_new_is_no_message():
    assert message_of(Story().see(wrong()), BEGIN) is None


def test_many_at_once_are_named_and_the_message_stays_short():
    story = Story(Patience(after_seconds=0))
    tidings = story.see(*(wrong(f"symbol:S{number}_USDT") for number in range(300)))

    message = message_of(tidings, story.now)

    assert message.title == "qlib-crypto: 300 new"
    assert message.body.count("is wrong") == 8
    assert message.body.endswith("and 272 more; GET /alerts has all that is open")
    assert len(message.body) < 2000


KEYS = ("down:writer", "gaps", "symbol:BTC_USDT")
SEEN = st.lists(st.tuples(st.sets(st.sampled_from(KEYS)), st.sets(st.sampled_from(KEYS)), st.integers(1, 400)))


@given(SEEN, st.sampled_from([0.0, 60.0, 100.0]), st.sampled_from([0.0, 900.0, 3600.0]), st.sampled_from([0.0, 300.0]))
def test_never_two_tellings_without_a_recovery_between_them_inside_the_reminder_time(seen, after, again, settled):
    """And never a recovery of what was not told, nor a word before its time."""
    patience, alerts, now = Patience(after, again, settled), {}, BEGIN
    last: dict[str, datetime | None] = dict.fromkeys(KEYS)
    present_since: dict[str, datetime | None] = dict.fromkeys(KEYS)
    for present, unknown, seconds in seen:
        for key in KEYS:
            if key in present:
                present_since[key] = present_since[key] or now
            elif key not in unknown:
                present_since[key] = None
        judgement = Judgement(tuple(wrong(key) for key in sorted(present)), frozenset(unknown - present))
        alerts, tidings = step(alerts, judgement, now, patience)
        for alert in tidings.opened:
            assert last[alert.key] is None
            assert alert.key in present
            assert (now - present_since[alert.key]).total_seconds() >= after
            last[alert.key] = now
        for alert in tidings.reminded:
            assert again
            assert (now - last[alert.key]).total_seconds() >= again
            last[alert.key] = now
        for alert in tidings.recovered:
            assert last[alert.key] is not None
            assert alert.key not in present
            assert (now - alert.gone).total_seconds() >= settled
            last[alert.key] = None
        assert {key for key, alert in alerts.items() if alert.told} == {key for key in KEYS if last[key] is not None}
        now += timedelta(seconds=seconds)


@pytest.mark.parametrize("field", ["told", "gone"])
def test_an_alert_of_an_earlier_process_goes_on_where_it_was(field):
    kept = Alert(
        key="down:writer",
        severity="critical",
        what="",
        means="",
        doing="",
        todo="",
        since=BEGIN - timedelta(hours=1),
        patient_from=BEGIN - timedelta(hours=1),
        told=BEGIN - timedelta(minutes=59),
        told_last=BEGIN - timedelta(minutes=59),
        gone=BEGIN - timedelta(minutes=1) if field == "gone" else None,
    )
    story = Story()
    story.alerts = {kept.key: kept}
    story.see(wrong(), times=3)

    assert story.told == []
    assert story.alerts["down:writer"].since == kept.since
    assert story.alerts["down:writer"].gone is None
