"""Named length distributions: the paper's two data sets by their printed means, and the house workload.

The texts of those data sets may not be shipped, so only their means are used; the shape is assumed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from octavo.bench.paper import mean_tokens
from octavo.bench.workload import TRACES, WorkloadSpec
from octavo.errors import ConfigError

_DATA_SETS = {"sharegpt": "ShareGPT", "alpaca": "Alpaca"}


@dataclass(frozen=True, slots=True)
class Trace:
    """Attributes:
    name: as on the command line.
    about: what the lengths are and where they are from, in one line.
    """

    name: str
    about: str
    workload: WorkloadSpec


def make_trace(name: str, *, num_requests: int, seed: int, max_model_len: int) -> Trace:
    """The workload of a named trace: exponential lengths, prompt and output each cut at half of the context.

    Raises:
        ConfigError: there is no such trace, or the context is too short for it.
    """
    if name not in TRACES:
        raise ConfigError(f"--trace must be one of {', '.join(TRACES)}, not {name!r}")
    longest = max_model_len // 2
    if longest < 1:
        raise ConfigError(f"a context of {max_model_len} tokens has no room for a prompt and an output")
    plain = WorkloadSpec(num_requests=num_requests, seed=seed, min_prompt=1, min_output=1)
    plain = replace(plain, max_prompt=longest, max_output=longest)
    if name not in _DATA_SETS:
        about = f"exponential lengths of mean {plain.mean_prompt} in, {plain.mean_output} out"
        return Trace(name, about, plain)
    mean_prompt, mean_output = mean_tokens(_DATA_SETS[name])
    about = (
        f"{_DATA_SETS[name]}-like: exponential lengths of the paper's means, "
        f"{mean_prompt:.0f} in, {mean_output:.0f} out"
    )
    return Trace(name, about, replace(plain, mean_prompt=round(mean_prompt), mean_output=round(mean_output)))
