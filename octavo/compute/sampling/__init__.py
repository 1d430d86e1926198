"""Choosing tokens from logits: penalties, filters, counter-based randomness and log-probabilities.

Knows rows of logits and SampleRequests; never a sequence, a request or a scheduler.
"""

from octavo.compute.sampling.logprobs import token_logprobs
from octavo.compute.sampling.sampler import Sampler

__all__ = ["Sampler", "token_logprobs"]
