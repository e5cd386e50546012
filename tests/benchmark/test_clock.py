import time

from t2i_tf.benchmark import clock


def test_two_take_turns_and_neither_always_comes_first():
    order = []

    def action(name):
        return lambda: order.append(name) or 1

    times = clock.alternate([action("a"), action("b")], 3)
    assert "".join(order) == "abbaab"
    assert [len(of_one) for of_one in times] == [3, 3]


def test_the_time_is_that_of_one(monkeypatch):
    ticks = iter([0.0, 12.0, 20.0, 26.0])
    monkeypatch.setattr(clock.time, "perf_counter", lambda: next(ticks))
    assert clock.alternate([lambda: 3], 2) == [[4.0, 2.0]]


def test_spread_by_hand():
    found = clock.spread([5.0, 1.0, 2.0, 3.0, 4.0])
    assert found == {"median": 3.0, "quartiles": [2.0, 4.0], "range": [1.0, 5.0], "all": [5.0, 1.0, 2.0, 3.0, 4.0]}


def test_the_age_of_the_process_grows_with_the_clock():
    began = time.monotonic()
    first = clock.process_seconds()
    time.sleep(0.05)
    assert first > 0 and 0.04 < clock.process_seconds() - first < time.monotonic() - began + 0.02
