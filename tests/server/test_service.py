"""ServiceParams from a body: what is taken, what is bounded, what would have no effect."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from octavo.config import SchedulerConfig
from octavo.errors import RequestError
from octavo.server.openai.schema import CompletionBody
from octavo.server.openai.service import service_params
from octavo.service_params import DEFAULT_SERVICE, ServiceParams

FAIR = SchedulerConfig(policy="fair")
DIGEST = hashlib.sha256(b"secret").hexdigest()[:16]


def read(
    scheduler: SchedulerConfig | None = None, authorization: str | None = None, **fields: Any
) -> ServiceParams:
    return service_params(CompletionBody(**fields), authorization, scheduler or SchedulerConfig())


def test_nothing_sent_is_the_default() -> None:
    assert read() == DEFAULT_SERVICE
    assert read(user="alice") == DEFAULT_SERVICE  # which matters under the policy "fair" alone
    assert read(priority=0) == DEFAULT_SERVICE


@pytest.mark.parametrize(
    ("user", "authorization", "key"),
    [
        ("alice", "Bearer secret", "alice"),
        (None, "Bearer secret", DIGEST),
        ("", "bearer  secret ", DIGEST),
        (None, "Basic secret", ""),
        (None, "Bearer ", ""),
        (None, None, ""),
    ],
)
def test_whose_a_request_is(user: str | None, authorization: str | None, key: str) -> None:
    assert read(FAIR, authorization, user=user).fairness_key == key


def test_long_users_have_keys_of_their_own() -> None:
    keys = {read(FAIR, user=name * 300).fairness_key for name in ("a", "b")}
    assert len(keys) == 2
    assert all(len(key) == 16 for key in keys)


def test_the_servers_queue_timeout_is_default_and_bound() -> None:
    limited = SchedulerConfig(queue_timeout=5.0)
    assert read(limited).queue_timeout_seconds == 5.0
    assert read(limited, queue_timeout_seconds=2).queue_timeout_seconds == 2
    assert read(queue_timeout_seconds=100).queue_timeout_seconds == 100
    with pytest.raises(RequestError, match="at most 5") as caught:
        read(limited, queue_timeout_seconds=6)
    assert caught.value.param == "queue_timeout_seconds"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"priority": 1}, "priority"),
        ({"priority": 2**40}, "priority"),
        ({"cache_salt": ""}, "cache_salt"),
        ({"cache_salt": "x" * 300}, "cache_salt"),
        ({"deadline_seconds": 0}, "deadline_seconds"),
        ({"deadline_seconds": -1.0}, "deadline_seconds"),
        ({"queue_timeout_seconds": 0}, "queue_timeout_seconds"),
        ({"queue_timeout_seconds": 1e12}, "queue_timeout_seconds"),
    ],
)
def test_wrong_and_idle_values_are_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        read(**fields)
    assert caught.value.param == param


def test_priority_counts_under_its_policy() -> None:
    assert read(SchedulerConfig(policy="priority"), priority=-3).priority == -3
