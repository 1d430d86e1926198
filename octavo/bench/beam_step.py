"""One step of a beam search beside a decode step of as many ordinary sequences, in alternation.

Two engines of one process take turns, so that whatever else the machine does falls on both.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from octavo.bench.statistics import quantile
from octavo.errors import RequestFailedError
from octavo.sampling_params import SamplingParams

if TYPE_CHECKING:
    from octavo.control.engine import Engine

GOAL_RATIO = 1.15
_NUM_WARM_UP_PAIRS = 4


@dataclass(frozen=True, kw_only=True)
class BeamStepCost:
    """Attributes:
    beam_ms, decode_ms: of each step, in pairs.
    """

    width: int
    num_prompt_tokens: int
    beam_ms: list[float]
    decode_ms: list[float]

    @property
    def ratios(self) -> list[float]:
        """Of each pair."""
        return [beam / decode for beam, decode in zip(self.beam_ms, self.decode_ms, strict=True)]

    @property
    def ratio(self) -> float:
        """Median of the pairs' ratios."""
        return quantile(self.ratios, 0.5)

    def as_json(self) -> dict[str, Any]:
        ratios = self.ratios
        return {
            "width": self.width,
            "num_prompt_tokens": self.num_prompt_tokens,
            "num_pairs": len(ratios),
            "median_ratio": round(self.ratio, 4),
            "quartiles_of_ratios": [round(quantile(ratios, part), 4) for part in (0.25, 0.75)],
            "ratio_of_medians": round(statistics.median(self.beam_ms) / statistics.median(self.decode_ms), 4),
            "ratio_of_minima": round(min(self.beam_ms) / min(self.decode_ms), 4),
            "goal": GOAL_RATIO,
            "median_beam_ms": round(statistics.median(self.beam_ms), 4),
            "median_decode_ms": round(statistics.median(self.decode_ms), 4),
            "beam_ms": [round(value, 4) for value in self.beam_ms],
            "decode_ms": [round(value, 4) for value in self.decode_ms],
        }


def measure_beam_steps(
    beam_engine: Engine, decode_engine: Engine, prompt: list[int], *, width: int, num_pairs: int
) -> BeamStepCost:
    """Step both engines in turns, each time in the other order.

    Args:
        beam_engine, decode_engine: of the same model and settings, without work.
        prompt: of the beam search, and of each of `width` ordinary greedy requests.

    Raises:
        RequestError: they do not fit.
        RequestFailedError: a request ended before the last pair.
    """
    num_tokens = num_pairs + _NUM_WARM_UP_PAIRS + len(prompt) + 8
    greedy = SamplingParams(temperature=0.0, max_tokens=num_tokens, ignore_eos=True)
    beams = SamplingParams(
        n=width, use_beam_search=True, temperature=0.0, max_tokens=num_tokens, ignore_eos=True
    )
    beam_engine.submit("beam-step", prompt, beams)
    for number in range(width):
        decode_engine.submit(f"decode-step-{number}", prompt, greedy)
    for engine in (beam_engine, decode_engine):
        engine.step()  # what it did last may look like what is waited for
        while not _is_decoding(engine, width):
            engine.step()
    beam_ms: list[float] = []
    decode_ms: list[float] = []
    for number in range(-_NUM_WARM_UP_PAIRS, num_pairs):
        order = [(beam_engine, beam_ms), (decode_engine, decode_ms)]
        for engine, times in order if number % 2 else reversed(order):
            step_ms = _step(engine, width)
            if number >= 0:
                times.append(step_ms)
    beam_engine.abort("beam-step")
    for number in range(width):
        decode_engine.abort(f"decode-step-{number}")
    for engine in (beam_engine, decode_engine):
        while engine.has_work:
            engine.step()
    return BeamStepCost(width=width, num_prompt_tokens=len(prompt), beam_ms=beam_ms, decode_ms=decode_ms)


def _is_decoding(engine: Engine, width: int) -> bool:
    """Whether the last step was one token of each of `width` sequences, and nothing else."""
    trace = engine.last_step
    return trace is not None and (trace.num_decode_tokens, trace.num_prefill_tokens) == (width, 0)


def _step(engine: Engine, width: int) -> float:
    """Milliseconds of one step."""
    engine.step()
    trace = engine.last_step
    if trace is None or not _is_decoding(engine, width):
        raise RequestFailedError(f"a step was not of {width} sequences that decode")
    return trace.step_seconds * 1e3
