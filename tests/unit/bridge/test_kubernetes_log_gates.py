"""Who follows a log when more want to than may."""

from __future__ import annotations

from typing import Any, cast

from cairn_bridge.drivers.kubernetes.logs import Gates, LogFollower


class Wanting:
    """A follower that only says when it was let in."""

    def __init__(self, name: str, let_in: list[str]) -> None:
        self._name = name
        self._let_in = let_in

    def follow(self) -> None:
        self._let_in.append(self._name)


def wanting(names: str) -> tuple[dict[str, LogFollower], list[str]]:
    let_in: list[str] = []
    return {name: cast("Any", Wanting(name, let_in)) for name in names}, let_in


def test_each_that_leaves_lets_in_the_one_that_waited_longest() -> None:
    followers, let_in = wanting("abcd")
    gates = Gates(2, 1)
    for follower in followers.values():
        gates.enter(follower)
    assert let_in == ["a", "b"]
    gates.leave()
    assert let_in == ["a", "b", "c"]
    gates.leave()
    gates.leave()
    assert let_in == ["a", "b", "c", "d"]


def test_who_has_ended_takes_nobodys_place() -> None:
    followers, let_in = wanting("abc")
    gates = Gates(1, 1)
    for follower in followers.values():
        gates.enter(follower)
    gates.forget(followers["b"])
    gates.forget(followers["a"])  # it follows, and was not waiting
    gates.leave()
    assert let_in == ["a", "c"]


def test_after_the_end_nobody_is_let_in() -> None:
    followers, let_in = wanting("ab")
    gates = Gates(1, 1)
    for follower in followers.values():
        gates.enter(follower)
    gates.close()
    gates.leave()
    assert let_in == ["a"]
