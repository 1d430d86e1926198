"""From a request body to ServiceParams: urgency, whose it is, what it may share, and time limits."""

from __future__ import annotations

import hashlib

from octavo.config import SchedulerConfig
from octavo.errors import RequestError
from octavo.server.openai.schema import GenerationBody
from octavo.service_params import MAX_KEY_CHARS, ServiceParams, check_seconds

_DIGEST_CHARS = 16


def service_params(
    body: GenerationBody, authorization: str | None, scheduler: SchedulerConfig
) -> ServiceParams:
    """How to serve a request.

    Args:
        authorization: the header of that name.
        scheduler: the server's policy, and the longest that anything may wait.

    Raises:
        RequestError: a value is wrong, or would have no effect; names the field.
    """
    service = ServiceParams(
        priority=body.priority or 0,
        # `user` is sent as a matter of course, and what it says matters under this policy alone.
        fairness_key=_fairness_key(body.user, authorization) if scheduler.policy == "fair" else "",
        cache_salt=read_cache_salt(body.cache_salt),
        deadline_seconds=body.deadline_seconds,
        queue_timeout_seconds=_queue_timeout(body.queue_timeout_seconds, scheduler.queue_timeout),
    )
    service.refuse_without_effect(scheduler.policy)
    return service


def read_cache_salt(wanted: str | None) -> str:
    """Raises RequestError: empty, by which somebody who meant to be apart would share with all."""
    if wanted == "":
        raise RequestError(
            "cache_salt must not be empty; leave it out to share cached prefixes with everyone",
            param="cache_salt",
        )
    return wanted or ""


def _fairness_key(user: str | None, authorization: str | None) -> str:
    """`user` as it is where it is short; a digest of it, or of the bearer key, where not; "" for nobody."""
    if user:
        return user if len(user) <= MAX_KEY_CHARS else _digest(user)
    scheme, _, key = (authorization or "").partition(" ")
    return _digest(key.strip()) if scheme.lower() == "bearer" and key.strip() else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_CHARS]


def _queue_timeout(wanted: float | None, limit: float | None) -> float | None:
    if wanted is None:
        return limit
    check_seconds("queue_timeout_seconds", wanted)
    if limit is not None and wanted > limit:
        raise RequestError(
            f"queue_timeout_seconds must be at most {limit:g}, this server's own limit, not {wanted:g}",
            param="queue_timeout_seconds",
        )
    return wanted
