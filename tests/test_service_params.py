"""How a request is to be served: ranges, and what a policy would ignore."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.errors import RequestError
from octavo.service_params import ServiceParams, check_seconds


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"priority": 1.5}, "priority"),
        ({"priority": True}, "priority"),
        ({"priority": 2**31}, "priority"),
        ({"fairness_key": 5}, "fairness_key"),
        ({"cache_salt": "x" * 257}, "cache_salt"),
        ({"deadline_seconds": float("nan")}, "deadline_seconds"),
        ({"deadline_seconds": 0}, "deadline_seconds"),
        ({"queue_timeout_seconds": True}, "queue_timeout_seconds"),
        ({"queue_timeout_seconds": "5"}, "queue_timeout_seconds"),
    ],
)
def test_wrong_values_are_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        ServiceParams(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("service", "policy", "param"),
    [
        (ServiceParams(priority=1), "fcfs", "priority"),
        (ServiceParams(priority=1), "fair", "priority"),
        (ServiceParams(priority=1), "priority", None),
        (ServiceParams(fairness_key="a"), "fcfs", "fairness_key"),
        (ServiceParams(fairness_key="a"), "fair", None),
        (ServiceParams(cache_salt="a", deadline_seconds=1), "fcfs", None),
    ],
)
def test_what_a_policy_would_ignore_is_refused(
    service: ServiceParams, policy: str, param: str | None
) -> None:
    if param is None:
        service.refuse_without_effect(policy)
        return
    with pytest.raises(RequestError, match=policy) as caught:
        service.refuse_without_effect(policy)
    assert caught.value.param == param


def test_time_spans() -> None:
    check_seconds("ttl_seconds", 0.5)
    with pytest.raises(RequestError, match="ttl_seconds"):
        check_seconds("ttl_seconds", 10**9)
