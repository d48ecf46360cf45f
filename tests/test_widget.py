"""Messages of a browser: in the order in which they were sent, and one at a time."""

import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from workbench import _widget
from workbench._widget import InOrder


def messages(turns, view="a"):
    return [{"view": view, "turn": turn} for turn in turns]


@given(st.permutations(range(8)), st.permutations(range(5)))
def test_two_views_are_heard_in_their_own_order(first, second):
    heard = []
    order = InOrder(heard.append)
    for one, other in zip(messages(first), messages(second, "b") + [None] * 3, strict=True):
        order.take(one)
        if other:
            order.take(other)
    assert [m["turn"] for m in heard if m["view"] == "a"] == list(range(8))
    assert [m["turn"] for m in heard if m["view"] == "b"] == list(range(5))


def test_threads_do_not_interrupt_one_another():
    inside, most = [], []

    def handle(message):
        inside.append(message)
        time.sleep(0.002)
        most.append(len(inside))
        inside.remove(message)

    order = InOrder(handle)
    shells = [
        threading.Thread(target=lambda turns=turns: [order.take(m) for m in messages(turns)])
        for turns in (range(0, 40, 2), range(1, 40, 2))
    ]
    for shell in shells:
        shell.start()
    for shell in shells:
        shell.join()
    assert most == [1] * 40


def test_what_never_comes_is_given_up_and_what_comes_late_is_heard(monkeypatch):
    monkeypatch.setattr(_widget, "_PATIENCE", 0.05)
    heard, all_heard = [], threading.Event()

    def handle(message):
        heard.append(message["turn"])
        if message["turn"] == 5:
            all_heard.set()

    order = InOrder(handle)
    for message in messages([0, 2, 3, 5]):
        order.take(message)
    assert heard == [0]
    assert all_heard.wait(30)
    order.take({"view": "a", "turn": 1})
    assert heard == [0, 2, 3, 5, 1]
