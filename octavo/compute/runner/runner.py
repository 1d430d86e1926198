"""ModelRunner.run: one plan in, one result out. Owns the order of a step's work on the device.

It decides nothing: which sequences run, and where their blocks lie, is in the plan.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from octavo.compute.kernels.signatures import CallTime
from octavo.compute.models.decoder import Decoder
from octavo.compute.runner.batch_inputs import BatchInputs, BatchLimits, build_batch_inputs
from octavo.compute.runner.kv_storage import KvStorage
from octavo.compute.sampling.logprobs import token_logprobs
from octavo.compute.sampling.sampler import Sampler
from octavo.errors import RequestFailedError
from octavo.request import TokenLogprobs
from octavo.step import Candidate, SampledToken, SequenceSlice, StepPlan, StepResult

# Rows of prompt log-probabilities that are computed at once: bounds the logits held at a time
# (64 rows of 150,000 tokens are 38 MB).
PROMPT_LOGPROB_ROWS = 64


class ModelRunner:
    """Runs plans on one decoder and its cache."""

    def __init__(self, decoder: Decoder, kv_storage: KvStorage) -> None:
        spec = decoder.spec
        self._decoder = decoder
        self._kv_storage = kv_storage
        self._sampler = Sampler(spec.vocab_size)
        self._limits = BatchLimits(
            vocab_size=spec.vocab_size,
            max_positions=spec.max_positions,
            num_blocks=kv_storage.num_blocks,
            block_size=kv_storage.block_size,
        )

    @torch.inference_mode()
    def run(self, plan: StepPlan) -> StepResult:
        """Copy blocks, push all slices through the model, sample where the plan asks for it.

        Raises:
            BlockCopyError: the block copies failed.
            ValueError: the plan names a token, position or block that does not exist. Nothing but its
                block copies has been written then.
        """
        started_seconds = time.perf_counter()
        result = StepResult(step_id=plan.step_id, tokens={})
        copy_seconds = 0.0
        if plan.block_copies:
            self._kv_storage.copy_blocks(plan.block_copies)
            copy_seconds = time.perf_counter() - started_seconds
        if plan.slices:
            inputs = build_batch_inputs(plan, self._limits, self._decoder.device)
            hidden = self._decoder.forward(inputs.token_ids, inputs.attention, self._kv_storage.layers)
            for piece, row_start in zip(plan.slices, inputs.row_starts[:-1], strict=True):
                if piece.prompt_logprob_targets:
                    self._score_prompt(piece, hidden[row_start:], result)
            self._sample(plan, inputs, hidden, result)
        compute_seconds = time.perf_counter() - started_seconds
        return replace(result, compute_seconds=compute_seconds, copy_seconds=copy_seconds)

    def time_calls(self, plan: StepPlan, repeats: int) -> tuple[list[CallTime], list[float]]:
        """Run a plan `repeats` times: what each call of the pass took in all, and seconds of each run.

        Raises:
            RuntimeError: these kernels record no passes, or not of this model.
        """
        for _ in range(2):  # the first run may record, the second finds everything in place
            self.run(plan)
        self._decoder.start_timing()
        seconds = [self.run(plan).compute_seconds for _ in range(repeats)]
        return self._decoder.stop_timing(), seconds

    @torch.inference_mode()
    def all_logits(self, plan: StepPlan) -> Iterator[Tensor]:
        """Push all slices through the model, and sample nothing.

        Yields:
            [num_rows, vocab_size] float32 of the plan's next rows, at most PROMPT_LOGPROB_ROWS at a time.

        Raises:
            ValueError: the plan names a token, position or block that does not exist.
        """
        inputs = build_batch_inputs(plan, self._limits, self._decoder.device)
        hidden = self._decoder.forward(inputs.token_ids, inputs.attention, self._kv_storage.layers)
        # A pass's rows are good until the next one, which may come before the last is asked for.
        for rows in torch.split(hidden.clone(), PROMPT_LOGPROB_ROWS):
            yield self._decoder.logits(rows)

    def _sample(self, plan: StepPlan, inputs: BatchInputs, hidden: Tensor, result: StepResult) -> None:
        """Choose the token, or a beam's candidates, after each slice that wants one; adds to the result."""
        wanted = [
            (piece.sequence_id, row_end - 1, piece.sample)
            for piece, row_end in zip(plan.slices, inputs.row_starts[1:], strict=True)
            if piece.sample is not None and piece.sequence_id not in result.failures
        ]
        if not wanted:
            return
        rows = torch.tensor([row for _, row, _ in wanted], device=hidden.device)
        requests = [sample for _, _, sample in wanted]
        outcomes: Sequence[SampledToken | list[Candidate] | str]
        if self._sampler.needs_only_largest(requests):
            outcomes = self._sampler.accept_largest(*self._decoder.choose_greedy(hidden[rows]))
        else:
            outcomes = self._sampler.sample(self._decoder.logits(hidden[rows]), requests)
        for (sequence_id, _, _), outcome in zip(wanted, outcomes, strict=True):
            if isinstance(outcome, SampledToken):
                result.tokens[sequence_id] = outcome
            elif isinstance(outcome, list):
                result.candidates[sequence_id] = outcome
            else:
                result.failures[sequence_id] = outcome

    def _score_prompt(self, piece: SequenceSlice, hidden: Tensor, result: StepResult) -> None:
        """Log-probabilities of the prompt tokens that follow the slice's first rows of `hidden`."""
        targets = piece.prompt_logprob_targets
        entries: list[TokenLogprobs] = []
        for start in range(0, len(targets), PROMPT_LOGPROB_ROWS):
            chunk = targets[start : start + PROMPT_LOGPROB_ROWS]
            logits = self._decoder.logits(hidden[start : start + len(chunk)])
            try:
                entries += token_logprobs(logits, chunk, piece.num_prompt_logprobs)
            except RequestFailedError as error:  # these rows are not finite; other sequences' may be
                result.failures[piece.sequence_id] = str(error)
                return
        result.prompt_logprobs[piece.sequence_id] = entries
