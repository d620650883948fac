from services.simulator.okx.limits import SlidingWindow


def test_a_window_allows_its_limit_and_recovers():
    window = SlidingWindow(2, 2.0)

    assert [window.allows("a", now) for now in (0.0, 1.0, 1.9, 2.0, 2.5, 3.0)] == [True, True, False, True, False, True]


def test_keys_are_counted_apart():
    window = SlidingWindow(1, 2.0)

    assert [window.allows(key, 0.0) for key in "aab"] == [True, False, True]


def test_idle_keys_are_forgotten():
    window = SlidingWindow(1, 2.0)
    for number in range(10_000):
        window.allows(number, 0.0)

    window.allows("new", 5.0)

    assert len(window._events) == 1
