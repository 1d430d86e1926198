"""Under the policy "fair", keys share the engine by weight, however much one of them asks for."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from octavo.control.scheduler.policy import OUTPUT_TOKEN_COST, PROMPT_TOKEN_COST, FairShare
from octavo.sampling_params import SamplingParams
from octavo.service_params import ServiceParams
from tests.control.fake_engine import FakeEngine


def jain_index(shares: list[float]) -> float:
    """(sum x)^2 / (n sum x^2): 1 for equal shares, 1/n where one has all (Jain, 1984)."""
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


class Tenants:
    """Keys that ask at their own rates; counts what each is served, apart from the policy's own count."""

    def __init__(self, weights: dict[str, float], seed: int, **settings: int) -> None:
        self.fake = FakeEngine(
            num_blocks=400, max_num_seqs=4, max_num_batched_tokens=64, policy=FairShare(weights), **settings
        )
        self.rng = random.Random(seed)
        self.served: Counter[str] = Counter()
        self.num_alive: Counter[str] = Counter()
        self._keys: dict[str, str] = {}
        self._prompt_lengths: dict[str, int] = {}

    def submit(self, key: str) -> None:
        request_id = str(len(self._keys))
        length = self.rng.randint(2, 30)
        prompt = [self.rng.randrange(1, 900) for _ in range(length)]
        params = SamplingParams(max_tokens=self.rng.randint(2, 20), ignore_eos=True, seed=1)
        self.fake.engine.submit(request_id, prompt, params, service=ServiceParams(fairness_key=key))
        self._keys[request_id] = key
        self._prompt_lengths[request_id] = length
        self.num_alive[key] += 1

    def keep_asking(self, num_steps: int, outstanding: dict[str, int]) -> None:
        """Each key always has so many requests alive."""
        for _ in range(num_steps):
            for key, count in outstanding.items():
                while self.num_alive[key] < count:
                    self.submit(key)
            for delta in self.fake.step():
                key = self._keys[delta.request_id]
                num_prompt_tokens = self._prompt_lengths.pop(delta.request_id, 0)
                self.served[key] += int(
                    PROMPT_TOKEN_COST * num_prompt_tokens + OUTPUT_TOKEN_COST * len(delta.token_ids)
                )
                self.num_alive[key] -= delta.finish_reason is not None


@pytest.mark.parametrize("seed", range(3))
def test_equal_keys_have_equal_shares_while_one_floods(seed: int) -> None:
    tenants = Tenants({}, seed)
    for _ in range(300):
        tenants.submit("flood")
    tenants.keep_asking(1500, {"a": 4, "b": 6, "c": 8})
    assert tenants.num_alive["flood"] > 0, "it asked for more than all the time"
    assert jain_index([tenants.served[key] for key in ("flood", "a", "b", "c")]) >= 0.95


def test_first_come_first_served_would_not_do() -> None:
    """What the index is without the policy: the test above can fail."""
    tenants = Tenants({}, 0)
    tenants.fake.scheduler.policy.key = lambda request: ""  # type: ignore[method-assign]
    for _ in range(300):
        tenants.submit("flood")
    tenants.keep_asking(300, {"a": 4, "b": 6, "c": 8})
    assert jain_index([tenants.served[key] for key in ("flood", "a", "b", "c")]) < 0.5


@pytest.mark.parametrize("seed", range(3))
def test_weights_make_shares(seed: int) -> None:
    tenants = Tenants({"double": 2.0}, seed)
    tenants.keep_asking(2000, {"double": 12, "single": 12, "other": 12})
    assert tenants.served["double"] / tenants.served["single"] == pytest.approx(2.0, rel=0.1)
    assert tenants.served["other"] / tenants.served["single"] == pytest.approx(1.0, rel=0.1)


def test_a_key_that_was_away_has_no_claim_to_the_time_before() -> None:
    tenants = Tenants({}, 1)
    tenants.keep_asking(50, {"steady": 8, "away": 8})
    tenants.keep_asking(600, {"steady": 8})
    before = Counter(tenants.served)
    tenants.keep_asking(400, {"steady": 8, "away": 8})
    gained = [tenants.served[key] - before[key] for key in ("steady", "away")]
    assert jain_index(gained) >= 0.95


def test_who_is_alone_has_everything() -> None:
    tenants = Tenants({"idle": 100.0}, 2)
    tenants.keep_asking(50, {"only": 8})
    assert {len(plan.slices) for plan in tenants.fake.plans[3:]} == {4}
