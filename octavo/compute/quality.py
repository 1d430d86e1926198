"""One model in several numeric forms, compared by their distributions over the next token.

Holds the workers and the sums of one window of text; what is made of many windows is the bench's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from octavo.compute.executor.worker import Worker
from octavo.step import SequenceSlice, StepPlan

_BLOCK_SIZE = 16


@dataclass(slots=True)
class WindowSums:
    """One form's rows of one window, beside the reference's. All in nats.

    Attributes:
        num_rows: places at which a following token is known.
        loss: sum of -log p(following token).
        kl: sum of KL(reference || this form), over the whole vocabulary.
        max_kl: the largest of these.
        num_agreeing: rows whose likeliest token is the reference's.
    """

    num_rows: int = 0
    loss: float = 0.0
    kl: float = 0.0
    max_kl: float = 0.0
    num_agreeing: int = 0


class QualityComparison:
    """A reference and other forms of the same model, all reading the same text.

    Args:
        workers: the reference first. They are given a cache for one window.
        max_window: tokens of the longest window.
    """

    def __init__(self, workers: Sequence[Worker], *, max_window: int) -> None:
        self._workers = workers
        num_blocks = -(-max_window // _BLOCK_SIZE)
        self._block_ids = list(range(num_blocks))
        for worker in workers:
            worker.allocate_kv(num_blocks, _BLOCK_SIZE)

    @property
    def format_names(self) -> list[tuple[str, str]]:
        """Of each worker, the formats of its matrices and of its keys and values."""
        return [(worker.dtype_name, worker.kv_dtype_name) for worker in self._workers]

    @property
    def kernels_name(self) -> str:
        return self._workers[-1].kernels_name

    @torch.inference_mode()
    def read(self, token_ids: list[int], *, num_given: int) -> list[WindowSums]:
        """Push a window through every worker.

        Never holds more than some rows of each worker's scores: 64 rows of 49,152 tokens are 13 MB.

        Args:
            token_ids: the window, in one pass.
            num_given: its first tokens, which are not scored: at least 1.

        Returns:
            The sums of each worker, the reference first.
        """
        plan = StepPlan(0, [SequenceSlice(0, token_ids, 0, self._block_ids)])
        sums = [WindowSums() for _ in self._workers]
        row = 0
        for pieces in zip(*(worker.all_logits(plan) for worker in self._workers), strict=True):
            num_rows = len(pieces[0])
            first = max(num_given - 1 - row, 0)
            following = token_ids[row + first + 1 : row + num_rows + 1]
            if following:
                rows = slice(first, first + len(following))
                _add_rows(sums, [piece[rows] for piece in pieces], torch.tensor(following))
            row += num_rows
        return sums


def _add_rows(sums: list[WindowSums], logits: list[Tensor], following: Tensor) -> None:
    # logits: of each worker [num_rows, vocab_size]; following: [num_rows]
    reference = logits[0].log_softmax(-1)
    probabilities, best = reference.exp(), reference.argmax(-1)
    for one, scores in zip(sums, logits, strict=True):
        logprobs = reference if scores is logits[0] else scores.log_softmax(-1)
        chosen = logprobs.gather(1, following.to(logprobs.device)[:, None])
        # Exact sums of tiny terms of both signs: in float32 the rounding of 50,000 would be seen.
        kl = (probabilities * (reference - logprobs)).sum(-1, dtype=torch.float64).clamp_min(0.0)
        one.num_rows += len(following)
        one.loss -= float(chosen.sum(dtype=torch.float64))
        one.kl += float(kl.sum())
        one.max_kl = max(one.max_kl, float(kl.max()))
        one.num_agreeing += int((logprobs.argmax(-1) == best).sum())
