"""Notified once, reminded rarely, resolved: from conditions to notifications."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.alerts.condition import Condition, Evaluation
from services.api.alerts.lifecycle import Alert, AlertPolicy, advance
from services.api.alerts.message import message_of

BEGIN = datetime(2025, 4, 5, 12, tzinfo=UTC)
POLICY = AlertPolicy(notify_after_seconds=60, remind_every_seconds=3600, resolve_after_seconds=300)


def wrong(key="down:writer", **changes):
    texts = {"what": f"{key} is wrong", "means": "nothing new is stored", "doing": "it is started again"}
    return Condition(**{"key": key, "severity": "critical", **texts, **changes})


class Story:
    """Alerts that see one evaluation after another, every 15 seconds."""

    def __init__(self, policy=POLICY):
        self.alerts, self.now, self.policy, self.sent = {}, BEGIN, policy, []

    def see(self, *conditions, times=1, unknown=()):
        for _ in range(times):
            evaluation = Evaluation(conditions, frozenset(unknown))
            self.alerts, changes = advance(self.alerts, evaluation, self.now, self.policy)
            at = (self.now - BEGIN).total_seconds()
            self.sent += [(at, "new", alert.key) for alert in changes.notified]
            self.sent += [(at, "still", alert.key) for alert in changes.reminded]
            self.sent += [(at, "resolved", alert.key) for alert in changes.resolved]
            self.now += timedelta(seconds=15)
        return changes


def test_a_condition_is_notified_once_it_has_lasted_and_not_again():
    story = Story()
    story.see(wrong(), times=100)

    assert story.sent == [(60, "new", "down:writer")]


def test_what_passes_by_itself_is_not_notified():
    story = Story()
    for _ in range(10):
        story.see(wrong(), times=4)
        story.see()

    assert story.sent == []
    assert story.alerts == {}


def test_what_cannot_wait_is_notified_at_once():
    story = Story()
    story.see(wrong(notify_after_seconds=0.0))

    assert story.sent == [(0, "new", "down:writer")]


def test_resolution_is_notified_once_it_has_lasted_with_the_duration_of_the_trouble():
    story = Story()
    story.see(wrong(), times=9)
    story.see(times=20)
    assert story.sent == [(60, "new", "down:writer")]
    changes = story.see()

    assert story.sent[1:] == [(435, "resolved", "down:writer")]
    assert story.alerts == {}
    message = message_of(changes, story.now)
    assert message.severity is None
    assert message.title == "qlib-crypto: resolved: down:writer is wrong"
    assert message.body == "Resolved: down:writer is wrong\nlasted 2 min, until 2025-04-05 12:02 UTC"


def test_what_flaps_is_notified_once():
    story = Story()
    story.see(wrong(), times=9)
    for _ in range(50):
        story.see(times=10)
        story.see(wrong(), times=1)

    assert story.sent[0] == (60, "new", "down:writer")
    assert {news for _, news, _ in story.sent[1:]} == {"still"}


def test_reminder_comes_once_in_the_time_that_is_set():
    story = Story()
    story.see(wrong(), times=4 * 130)

    assert story.sent == [(60, "new", "down:writer"), (3660, "still", "down:writer"), (7260, "still", "down:writer")]


def test_no_reminder_where_none_is_wanted():
    story = Story(AlertPolicy(notify_after_seconds=0, remind_every_seconds=0))
    story.see(wrong(), times=4 * 60 * 50)

    assert len(story.sent) == 1


def test_unknown_is_not_resolved():
    story = Story()
    story.see(wrong("problem:writer:disk"), times=9)
    story.see(wrong("down:writer"), times=100, unknown={"problem:writer"})

    assert [news[1:] for news in story.sent] == [("new", "problem:writer:disk"), ("new", "down:writer")]
    assert story.alerts["problem:writer:disk"].cleared is None


def test_what_shrinks_is_waited_for():
    story = Story()
    for missing in range(5000, 0, -1):
        story.see(wrong("gaps", amount=missing))
    assert story.sent == []

    story.see(wrong("gaps", amount=1), times=5)
    assert [news[1:] for news in story.sent] == [("new", "gaps")]


def test_what_stays_although_it_goes_up_and_down_is_notified():
    story = Story()
    for _ in range(4):
        story.see(wrong("gaps", amount=50))
        story.see(wrong("gaps", amount=40))

    assert [news[1:] for news in story.sent] == [("new", "gaps")]


def test_everything_of_one_evaluation_is_one_message_the_worst_first():
    story = Story(AlertPolicy(notify_after_seconds=0, resolve_after_seconds=0))
    story.see(wrong("old"))
    changes = story.see(wrong("mild", severity="warning", todo="look"), wrong("grave", lasted_seconds=600))

    message = message_of(changes, story.now)

    assert message.severity == "critical"
    assert message.title == "qlib-crypto: 2 new, 1 resolved"
    grave, mild, old = message.body.split("\n\n")
    assert grave.splitlines() == [
        "grave is wrong",
        "since 2025-04-05 11:50 UTC (10 min), critical: nothing new is stored",
        "The system: it is started again",
        "To do: nothing",
    ]
    assert mild.splitlines()[-1] == "To do: look"
    assert old.startswith("Resolved: old is wrong")


def test_nothing_new_is_no_message():
    assert message_of(Story().see(wrong()), BEGIN) is None


def test_many_at_once_are_named_and_the_message_stays_short():
    story = Story(AlertPolicy(notify_after_seconds=0))
    changes = story.see(*(wrong(f"symbol:S{number}_USDT") for number in range(300)))

    message = message_of(changes, story.now)

    assert message.title == "qlib-crypto: 300 new"
    assert message.body.count("is wrong") == 8
    assert message.body.endswith("and 272 more; GET /alerts has all that is open")
    assert len(message.body) < 2000


KEYS = ("down:writer", "gaps", "symbol:BTC_USDT")
SEEN = st.lists(st.tuples(st.sets(st.sampled_from(KEYS)), st.sets(st.sampled_from(KEYS)), st.integers(1, 400)))


@given(SEEN, st.sampled_from([0.0, 60.0, 100.0]), st.sampled_from([0.0, 900.0, 3600.0]), st.sampled_from([0.0, 300.0]))
def test_never_two_notifications_without_a_resolution_between_inside_the_reminder_time(seen, after, again, settled):
    """And never a resolution of what was not notified, nor a notification before its time."""
    policy, alerts, now = AlertPolicy(after, again, settled), {}, BEGIN
    last: dict[str, datetime | None] = dict.fromkeys(KEYS)
    present_since: dict[str, datetime | None] = dict.fromkeys(KEYS)
    for present, unknown, seconds in seen:
        for key in KEYS:
            if key in present:
                present_since[key] = present_since[key] or now
            elif key not in unknown:
                present_since[key] = None
        evaluation = Evaluation(tuple(wrong(key) for key in sorted(present)), frozenset(unknown - present))
        alerts, changes = advance(alerts, evaluation, now, policy)
        for alert in changes.notified:
            assert last[alert.key] is None
            assert alert.key in present
            assert (now - present_since[alert.key]).total_seconds() >= after
            last[alert.key] = now
        for alert in changes.reminded:
            assert again
            assert (now - last[alert.key]).total_seconds() >= again
            last[alert.key] = now
        for alert in changes.resolved:
            assert last[alert.key] is not None
            assert alert.key not in present
            assert (now - alert.cleared).total_seconds() >= settled
            last[alert.key] = None
        assert {key for key, alert in alerts.items() if alert.notified} == {
            key for key in KEYS if last[key] is not None
        }
        now += timedelta(seconds=seconds)


@pytest.mark.parametrize("field", ["notified", "cleared"])
def test_an_alert_of_an_earlier_process_goes_on_where_it_was(field):
    kept = Alert(
        key="down:writer",
        severity="critical",
        what="",
        means="",
        doing="",
        todo="",
        since=BEGIN - timedelta(hours=1),
        pending_since=BEGIN - timedelta(hours=1),
        notified=BEGIN - timedelta(minutes=59),
        last_notified=BEGIN - timedelta(minutes=59),
        cleared=BEGIN - timedelta(minutes=1) if field == "cleared" else None,
    )
    story = Story()
    story.alerts = {kept.key: kept}
    story.see(wrong(), times=3)

    assert story.sent == []
    assert story.alerts["down:writer"].since == kept.since
    assert story.alerts["down:writer"].cleared is None


def test_an_alert_in_redis_has_the_names_that_another_version_reads():
    at = "2025-04-05T12:00:00Z"
    texts = dict.fromkeys(("key", "what", "means", "doing", "todo"), "x")
    times = dict.fromkeys(("since", "patient_from", "told", "told_last", "gone"), at)
    saved = {**texts, **times, "severity": "critical", "least": 3.0}

    alert = msgspec.convert(saved, Alert)

    assert (alert.pending_since, alert.notified, alert.last_notified, alert.cleared) == (BEGIN,) * 4
    assert msgspec.to_builtins(alert) == saved
