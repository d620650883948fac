import json

import pytest

from services.simulator.faults.fault import Asked, Push, Reply
from services.simulator.faults.kinds import BadFaultError, read_faults
from services.simulator.faults.plan import FaultPlan

NOW = 1_000_000
CONFIRM = Push("business", "candle1m", "ADA-USDT-SWAP", "confirm", b'{"confirm":1}')
FORMING = CONFIRM._replace(kind="forming")
FUNDING = Push("public", "funding-rate", "ADA-USDT-SWAP", "funding", b'{"data":[{"fundingRate":"0.1"}]}')


def plan(*faults):
    made = FaultPlan()
    for fault in read_faults(json.dumps(faults).encode()):
        made.add(fault, NOW)
    return made


def sent(made, push, now_ms=NOW, wall=0.0):
    return [(delivery.delay_ms, delivery.payload) for delivery in made.deliveries(push, now_ms, wall)]


def answered(made, endpoint):
    return made.reply(Asked(endpoint, None, NOW), Reply(200, b'{"code":"0","data":[]}', "application/json", "0"), 0.0)


GENUINE = [(0, CONFIRM.payload)]


def test_without_faults_everything_leaves_as_it_is():
    assert sent(plan(), CONFIRM) == GENUINE


def test_a_fault_without_count_and_duration_happens_once():
    made = plan({"kind": "lost_confirm"})

    assert [sent(made, push) for push in (FORMING, CONFIRM, CONFIRM)] == [GENUINE, [], GENUINE]


def test_a_count_is_used_up():
    made = plan({"kind": "lost_confirm", "count": 2})

    assert [sent(made, CONFIRM) for _ in range(3)] == [[], [], GENUINE]


def test_a_duration_runs_on_the_simulated_clock():
    made = plan({"kind": "lost_confirm", "at": NOW + 500, "duration": 2})

    assert [sent(made, CONFIRM, NOW + after) for after in (499, 500, 2_499, 2_500)] == [GENUINE, [], [], GENUINE]


def test_a_duration_can_run_on_the_wall_clock():
    made = plan({"kind": "silence", "duration": 2, "clock": "wall"})

    assert [sent(made, CONFIRM, NOW + 10**7, wall) for wall in (5.0, 6.9, 7.0)] == [[], [], GENUINE]


def test_filters_choose_instrument_and_path():
    made = plan({"kind": "silence", "duration": 9, "instId": "ETH-USDT-SWAP"})
    other = plan({"kind": "silence", "duration": 9, "path": "public"})

    assert sent(made, CONFIRM) == GENUINE
    assert sent(other, CONFIRM) == GENUINE
    assert sent(other, FUNDING) == []
    assert (made.is_mute("public", NOW, 0), other.is_mute("public", NOW, 0)) == (False, True)


def test_a_confirm_comes_late_or_twice():
    assert sent(plan({"kind": "late_confirm", "delay": 7.5}), CONFIRM) == [(7_500, CONFIRM.payload)]
    assert sent(plan({"kind": "duplicate_confirm"}), CONFIRM) == GENUINE * 2


def test_faults_add_up():
    made = plan({"kind": "duplicate_confirm"}, {"kind": "late_confirm", "delay": 1})

    assert sent(made, CONFIRM) == [(1_000, CONFIRM.payload)] * 2


def test_garbage_comes_in_front_of_the_genuine_push():
    text = sent(plan({"kind": "garbage"}), CONFIRM)
    truncated = sent(plan({"kind": "garbage", "variant": "truncated"}), CONFIRM)
    empty = plan({"kind": "garbage", "variant": "empty_rate"})

    assert text[1:] == truncated[1:] == GENUINE
    for _, payload in (text[0], truncated[0]):
        with pytest.raises(ValueError, match=r"Expecting|Unterminated|delimiter"):
            json.loads(payload)
    assert sent(empty, CONFIRM) == GENUINE
    assert [json.loads(payload)["data"][0]["fundingRate"] for _, payload in sent(empty, FUNDING)] == ["", "0.1"]


def test_connections_are_cut_once_or_as_long_as_it_lasts():
    connections = [("a", "public"), ("b", "business"), ("c", "business")]
    once = plan({"kind": "drop", "path": "business", "count": 1})
    lasting = plan({"kind": "close", "duration": 1})

    assert [once.cuts(connections, NOW + after, 0.0) for after in (0, 1)] == [[("b", "drop", 0)], []]
    assert lasting.cuts(connections, NOW, 0.0) == [("a", "close", 0), ("b", "close", 0), ("c", "close", 0)]
    assert lasting.cuts([("a", "public"), ("d", "public")], NOW + 999, 0.0) == [("d", "close", 0)]
    assert lasting.cuts([("e", "public")], NOW + 1_000, 0.0) == []


def test_requests_fail_by_endpoint():
    made = plan({"kind": "http_error", "endpoint": "market/candles", "status": 502, "html": True})

    assert answered(made, "/api/v5/market/history-candles").code == "0"
    reply = answered(made, "/api/v5/market/candles")
    assert (reply.status, reply.content_type) == (502, "text/html")
    assert answered(made, "/api/v5/market/candles").code == "0"


def test_rate_limits_travel_under_either_status():
    made = plan({"kind": "rate_limit", "count": 4})

    replies = [answered(made, "/api/v5/public/time") for _ in range(4)]

    assert sorted(reply.status for reply in replies) == [200, 200, 429, 429]
    assert {json.loads(reply.body)["code"] for reply in replies} == {"50011"}


def test_what_happened_is_recorded():
    made = plan({"kind": "lost_confirm"})
    sent(made, CONFIRM, NOW + 3)

    (entry,) = made.log

    assert entry.pop("wall").endswith("+00:00")
    assert entry == {
        "kind": "lost_confirm",
        "now_ms": NOW + 3,
        "path": "business",
        "instId": "ADA-USDT-SWAP",
        "push": "confirm",
    }


def test_an_instant_may_be_an_iso_time():
    (fault,) = read_faults(b'{"kind": "drop", "at": "1970-01-01T00:20:00Z"}')
    made = FaultPlan()
    made.add(fault, NOW)

    assert [made.cuts([("a", "public")], now, 0.0) for now in (1_199_999, 1_200_000)] == [[], [("a", "drop", 0)]]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not a fault"),
        ('{"kind": "drop", "speling": 1}', "speling"),
        ('{"kind": "explode"}', "no fault is called 'explode'"),
        ('{"kind": "drop", "instId": "ADA-USDT-SWAP"}', "does not take `instId`; it takes `path`"),
        ('{"kind": "silence"}', "duration"),
        ('{"kind": "drop", "at": "tomorrow"}', "ISO"),
    ],
)
def test_a_fault_that_is_not_understood_is_refused(text, complaint):
    with pytest.raises(BadFaultError, match=complaint):
        read_faults(text.encode())
