"""From logits to one token: the argmax, the plain draw, and the draw after min_p, top_k and top_p.

Draws by inverting the cumulative distribution with one given uniform number a row. Never sorts the whole
vocabulary unless a row's distribution is so flat that it must; a row's token never depends on other rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from octavo.compute.sampling.vocab_blocks import VocabBlocks

_LIKELY_TAIL_TOKENS = 4096  # first guess at how many tokens share the mass outside of top_p
_TURN_ELEMENTS = 2**22  # logits that may all become candidates at once: bounds what flat rows take to sort
_SMALLEST_GROUP = 1024  # rows with fewer candidates than this are sorted together
_BELOW_ONE = 1.0 - 2.0**-53


@dataclass(frozen=True, slots=True)
class Draw:
    """How to draw one row's token.

    Attributes:
        row: index of its logits.
        uniform: a number in [0, 1).
        row_maximum: its largest logit, finite.
        temperature: above 0.
        top_k: 0 keeps all tokens.
        top_p: 1.0 keeps all tokens.
        min_p: 0.0 keeps all tokens.
    """

    row: int
    uniform: float
    row_maximum: float
    temperature: float
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    @property
    def is_filtered(self) -> bool:
        return self.top_k > 0 or self.top_p < 1.0 or self.min_p > 0.0

    @property
    def is_top_p_of_all(self) -> bool:
        """Whether top_p refers to the mass of the whole vocabulary."""
        return self.top_p < 1.0 and self.top_k == 0 and self.min_p == 0.0


@dataclass(frozen=True, slots=True)
class Candidates:
    """The likeliest tokens of rows with a similar number of them, likeliest first, then lowest id first.

    `picks` says which of the m picked rows they are; `values` (logits) and `token_ids` are
    [m, max candidates]. Unused places, on the right, have the value -inf.
    """

    picks: list[int]
    values: Tensor
    token_ids: Tensor


def argmax(blocks: VocabBlocks, maxima: Tensor, rows: list[int]) -> list[int]:
    """The largest logit's token of each row, the lowest id among equals. `maxima` is `blocks.maxima()`."""
    row_ids = torch.tensor(rows, device=maxima.device)
    picked = maxima[row_ids]  # [num_picked, num_blocks]
    best = picked.amax(dim=1, keepdim=True)
    block_indices = _first_true(picked == best)
    values, token_ids = blocks.gather(row_ids, block_indices)
    places = _first_true(values == best)
    return _int_list(token_ids.gather(1, places[:, None]))


def draw_plain(blocks: VocabBlocks, draws: list[Draw]) -> list[int]:
    """A token of each row by softmax(logits / temperature): first its block, then its place in it."""
    columns = _Columns.of(draws, blocks.logits.device)
    sums = blocks.exp_sums(columns.rows, columns.row_maxima.float(), columns.temperatures.float())
    ends = sums.cumsum(dim=1)  # [num_draws, num_blocks]
    targets = columns.uniforms * ends[:, -1]
    block_indices = (ends <= targets[:, None]).sum(dim=1)
    picked = block_indices[:, None]
    starts = ends.gather(1, (picked - 1).clamp(min=0)) * (picked > 0)
    # What is left of the uniform number inside the block; rounding may push it out by a hair.
    fractions = ((targets[:, None] - starts) / sums.gather(1, picked)).clamp(0.0, _BELOW_ONE)
    values, token_ids = blocks.gather(columns.rows, block_indices)
    ends = columns.weigh(values).cumsum(dim=1)  # [num_draws, BLOCK_WIDTH]
    places = (ends <= fractions * ends[:, -1:]).sum(dim=1)
    return _int_list(token_ids.gather(1, places[:, None]))


def draw_filtered(blocks: VocabBlocks, maxima: Tensor, draws: list[Draw]) -> list[int]:
    """A token of each row by the softmax renormalised over what min_p, top_k and top_p leave, in this order.

    Order and semantics are vLLM's (v1/sample/sampler.py) and, each filter alone, transformers': all three
    come after temperature; min_p keeps p >= min_p * max(p); top_k keeps the k likeliest and all equals of
    the k-th; top_p keeps a token if the mass before it is below top_p of what the others left. Equal
    logits are ordered by token id.
    """
    masses = _whole_masses(blocks, draws)
    floors = _first_floors(blocks, maxima, draws, masses)
    token_ids: dict[int, int] = {}
    for is_last_round in (False, True):
        pending = [index for index in range(len(draws)) if index not in token_ids]
        rows = [draws[index].row for index in pending]
        for group in find_candidates(blocks, maxima, rows, [floors[index] for index in pending]):
            members = [pending[pick] for pick in group.picks]
            chosen, is_enough = _draw_among(
                group, [draws[i] for i in members], [masses.get(i) for i in members]
            )
            for index, token_id, enough in zip(members, chosen, is_enough, strict=True):
                if enough or is_last_round:
                    token_ids[index] = token_id
        # Candidates too few to fill top_p get a floor that certainly lets enough of them through.
        for index, mass in masses.items():
            floors[index] = _top_p_floor(draws[index], mass, blocks.vocab_size)
    return [token_ids[index] for index in range(len(draws))]


def find_candidates(
    blocks: VocabBlocks, maxima: Tensor, rows: list[int], floors: list[float]
) -> Iterator[Candidates]:
    """All finite logits not below each row's floor, in groups of rows with similarly many of them."""
    rows_per_turn = max(1, _TURN_ELEMENTS // blocks.vocab_size)
    for start in range(0, len(rows), rows_per_turn):
        row_ids = torch.tensor(rows[start : start + rows_per_turn], device=maxima.device)
        # -inf marks tokens that cannot come: never candidates, not even under a floor of -inf.
        lowest = torch.tensor(floors[start : start + rows_per_turn], device=maxima.device)
        lowest.clamp_(min=torch.finfo(torch.float32).min)
        picks, block_indices = (maxima[row_ids] >= lowest[:, None]).nonzero(as_tuple=True)
        values, token_ids = blocks.gather(row_ids[picks], block_indices)
        is_candidate = values >= lowest[picks, None]
        counts = torch.zeros_like(row_ids).index_add_(0, picks, is_candidate.sum(dim=1))
        # Masking runs over rows first and ids second, so each row's candidates lie together, ids ascending.
        for group in _sorted_groups(values[is_candidate], token_ids[is_candidate], counts):
            yield Candidates([start + pick for pick in group.picks], group.values, group.token_ids)


def _sorted_groups(values: Tensor, token_ids: Tensor, counts: Tensor) -> Iterator[Candidates]:
    """Rows' candidates end to end, `counts` of each -> sorted and padded, little of it padding."""
    starts = counts.cumsum(0) - counts
    groups: dict[int, list[int]] = {}
    for pick, count in enumerate(counts.tolist()):
        groups.setdefault(max(_SMALLEST_GROUP, count).bit_length(), []).append(pick)
    for members in groups.values():
        member_ids = torch.tensor(members, device=counts.device)
        columns = torch.arange(int(counts[member_ids].amax()), device=counts.device)
        is_used = columns < counts[member_ids, None]  # [num_members, width]
        places = (starts[member_ids, None] + columns).clamp(max=len(values) - 1)
        padded = values[places].masked_fill(~is_used, -math.inf)
        # A stable sort keeps ids ascending among equals.
        ordered, order = torch.sort(padded, dim=1, descending=True, stable=True)
        yield Candidates(members, ordered, token_ids[places].gather(1, order))


def top_k_floors(blocks: VocabBlocks, maxima: Tensor, rows: list[int], counts: list[int]) -> list[float]:
    """For each row a logit not above its k-th largest, so that all of the k likeliest are at or above it.

    The k largest block maxima are k logits of the row; only a k beyond the number of blocks has to look at
    the whole row.
    """
    floors = [-math.inf] * len(rows)
    for is_small in (True, False):
        picks = [i for i, count in enumerate(counts) if (count <= blocks.num_blocks) is is_small]
        if not picks:
            continue
        row_ids = torch.tensor([rows[i] for i in picks], device=maxima.device)
        values = (maxima if is_small else blocks.logits)[row_ids]
        places = torch.tensor([min(counts[i], values.shape[1]) - 1 for i in picks], device=maxima.device)
        largest = values.topk(int(places.amax()) + 1, dim=1).values
        for i, floor in zip(picks, largest.gather(1, places[:, None]).flatten().tolist(), strict=True):
            floors[i] = floor
    return floors


@dataclass(frozen=True, slots=True)
class _Columns:
    """The numbers of several draws as tensors [num_draws]; float64, as they decide at thresholds."""

    rows: Tensor
    uniforms: Tensor
    row_maxima: Tensor
    temperatures: Tensor

    @classmethod
    def of(cls, draws: list[Draw], device: torch.device) -> _Columns:
        numbers = torch.tensor(
            [(draw.uniform, draw.row_maximum, draw.temperature) for draw in draws],
            dtype=torch.float64,
            device=device,
        )
        return cls(torch.tensor([draw.row for draw in draws], device=device), *numbers.unbind(1))

    def weigh(self, values: Tensor) -> Tensor:
        """Logits [num_draws, any] -> exp((logit - row maximum) / temperature), float64."""
        return ((values.double() - self.row_maxima[:, None]) / self.temperatures[:, None]).exp()


def _draw_among(
    group: Candidates, draws: list[Draw], masses: list[float | None]
) -> tuple[list[int], list[bool]]:
    """Filter each row's candidates and draw one; also whether they were enough to fill `top_p`.

    `masses` has the whole vocabulary's where top_p refers to that, else None: the candidates' is meant.
    """
    device = group.values.device
    columns = _Columns.of(draws, device)
    limits = torch.tensor(
        [(draw.min_p, draw.top_p, mass or math.inf) for draw, mass in zip(draws, masses, strict=True)],
        dtype=torch.float64,
        device=device,
    )
    min_p, top_p, mass = limits[:, :, None].unbind(1)  # each [num_draws, 1]
    width = group.values.shape[1]
    last_places = torch.tensor([min(draw.top_k or width, width) - 1 for draw in draws], device=device)
    weights = columns.weigh(group.values)
    weights.masked_fill_(weights < min_p, 0.0)
    weights.masked_fill_(group.values < group.values.gather(1, last_places[:, None]), 0.0)
    ends = weights.cumsum(dim=1)  # [num_draws, width]
    candidate_mass = ends[:, -1:]
    mass = torch.where(mass.isinf(), candidate_mass, mass)
    wanted = torch.where(top_p < 1.0, top_p * mass, math.inf)
    num_kept = 1 + (ends[:, :-1] < wanted).sum(dim=1, keepdim=True)
    targets = columns.uniforms[:, None] * ends.gather(1, num_kept - 1)
    places = (ends <= targets).sum(dim=1, keepdim=True)
    is_enough = (candidate_mass >= torch.minimum(wanted, mass)).flatten().tolist()
    return _int_list(group.token_ids.gather(1, places)), is_enough


def _whole_masses(blocks: VocabBlocks, draws: list[Draw]) -> dict[int, float]:
    """Sum of exp((logit - maximum) / temperature) over the vocabulary, for the draws whose top_p needs it."""
    indices = [index for index, draw in enumerate(draws) if draw.is_top_p_of_all]
    if not indices:
        return {}
    columns = _Columns.of([draws[index] for index in indices], blocks.logits.device)
    sums = blocks.exp_sums(columns.rows, columns.row_maxima.float(), columns.temperatures.float())
    # The last of a running sum rather than a sum: its order of additions is the same for any batch.
    return dict(zip(indices, sums.cumsum(dim=1)[:, -1].tolist(), strict=True))


def _first_floors(
    blocks: VocabBlocks, maxima: Tensor, draws: list[Draw], masses: dict[int, float]
) -> list[float]:
    """Logits below which no token can come; for `top_p` alone only a good guess, to be checked."""
    floors = [-math.inf] * len(draws)
    limited = [index for index, draw in enumerate(draws) if draw.top_k]
    rows, counts = [draws[index].row for index in limited], [draws[index].top_k for index in limited]
    for index, floor in zip(limited, top_k_floors(blocks, maxima, rows, counts), strict=True):
        floors[index] = floor
    for index, draw in enumerate(draws):
        if draw.min_p > 0.0:
            floors[index] = max(floors[index], _floor_of_weight(draw, draw.min_p))
    for index, mass in masses.items():
        floors[index] = _top_p_floor(draws[index], mass, min(_LIKELY_TAIL_TOKENS, blocks.vocab_size))
    return floors


def _top_p_floor(draw: Draw, mass: float, num_tail_tokens: int) -> float:
    """So many tokens, each lighter than an equal share of 1 - top_p, are outside of top_p together.

    Certain for the whole vocabulary's number of tokens, a guess for fewer.
    """
    return _floor_of_weight(draw, (1.0 - draw.top_p) * mass / num_tail_tokens)


def _floor_of_weight(draw: Draw, weight: float) -> float:
    """The logit of a weight relative to the maximum's, lowered by more than float32 can have lost."""
    distance = draw.temperature * (math.log(weight) - 1e-3)
    return draw.row_maximum + distance - 1e-6 * (abs(draw.row_maximum) - distance)


def _first_true(mask: Tensor) -> Tensor:
    """Index of the first True of each row, [num_rows]; torch.argmax promises the first of equals."""
    return mask.to(torch.uint8).argmax(dim=1)


def _int_list(column: Tensor) -> list[int]:
    return [int(value) for value in column.flatten().tolist()]
