"""The orders of requests, by themselves."""

from __future__ import annotations

import pytest

from octavo.control.scheduler.policy import (
    OUTPUT_TOKEN_COST,
    PROMPT_TOKEN_COST,
    ByPriority,
    FairShare,
    FirstComeFirstServed,
    make_policy,
)
from tests.control.scheduler.requests import make_request


def test_arrival_orders_requests_whatever_they_say() -> None:
    policy = FirstComeFirstServed()
    first, second = make_request(priority=9), make_request(priority=-9, fairness_key="k")
    assert policy.rank(first) < policy.rank(second)
    assert policy.key(first) == policy.key(second) == ""
    policy.charge(first, 100, 100)
    policy.arrive("", {})
    assert policy.standing("") == 0.0
    assert not policy.displaces


def test_priority_orders_them_and_arrival_the_equals() -> None:
    policy = ByPriority()
    normal, later, urgent = make_request(), make_request(), make_request(priority=-1)
    assert sorted([later, normal, urgent], key=policy.rank) == [urgent, normal, later]
    assert policy.displaces


def test_a_key_is_charged_by_its_weight_and_by_kind_of_token() -> None:
    policy = FairShare({"heavy": 2.0})
    light, heavy = make_request(fairness_key="light"), make_request(fairness_key="heavy")
    for request in (light, heavy):
        policy.charge(request, 10, 3)
    cost = 10 * PROMPT_TOKEN_COST + 3 * OUTPUT_TOKEN_COST
    assert (policy.standing("light"), policy.standing("heavy")) == (cost, cost / 2)
    assert OUTPUT_TOKEN_COST > PROMPT_TOKEN_COST
    assert policy.rank(light) < policy.rank(heavy), "within a key, and among the running, by arrival"


def test_who_comes_back_begins_at_the_lowest_of_the_busy() -> None:
    policy = FairShare({})
    for key, num_tokens in (("a", 100), ("b", 40), ("late", 10)):
        policy.charge(make_request(fairness_key=key), num_tokens, 0)
    policy.arrive("late", {"a": 1, "b": 2})
    assert policy.standing("late") == 40
    policy.arrive("a", {"b": 2, "late": 1})
    assert policy.standing("a") == 100, "what was served is not forgiven"


def test_who_is_busy_or_alone_keeps_its_standing() -> None:
    policy = FairShare({})
    policy.charge(make_request(fairness_key="a"), 100, 0)
    policy.arrive("b", {"b": 1, "a": 1})
    policy.arrive("c", {})
    assert (policy.standing("b"), policy.standing("c")) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("name", "kind"), [("fcfs", FirstComeFirstServed), ("priority", ByPriority), ("fair", FairShare)]
)
def test_settings_name_them(name: str, kind: type) -> None:
    assert type(make_policy(name, {})) is kind
