"""The counter-based generator: published test vectors, and the statistics that sampling leans on."""

import math

import pytest
import torch

from octavo.compute.sampling.rng import philox4x32, uniform


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        # Known answers that Random123 ships (tests/kat_vectors, philox4x32 10).
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_words(counter, key, expected):
    assert philox4x32(counter, key) == expected


def test_uniform_takes_any_64_bit_seed_and_large_positions():
    seeds = [0, 1, -1, 2**63 - 1, -(2**63), 2**63 + 127, 2**32, -(2**32)]
    positions = [0, 1, 2**31, 2**32, 2**40]
    numbers = [uniform(seed, position) for seed in seeds for position in positions]
    assert all(0.0 <= number < 1.0 for number in numbers)
    assert len(set(numbers)) == len(numbers)
    assert uniform(-1, 5) == uniform(2**64 - 1, 5)


def test_numbers_are_evenly_spread_over_positions_and_over_seeds():
    by_position = torch.tensor([uniform(7, position) for position in range(20_000)], dtype=torch.float64)
    by_seed = torch.tensor([uniform(seed, 7) for seed in range(-10_000, 10_000)], dtype=torch.float64)
    for numbers in (by_position, by_seed):
        counts = torch.histc(numbers, bins=100, min=0.0, max=1.0)
        chi_square = ((counts - 200) ** 2 / 200).sum()
        # 99 degrees of freedom: mean 99, standard deviation sqrt(198); five of them either way.
        assert abs(chi_square - 99) < 5 * math.sqrt(198)


@pytest.mark.parametrize(("seed_step", "position_step"), [(0, 1), (1, 0), (1, -1), (2**32, 0), (0, 256)])
def test_neighbouring_positions_and_seeds_are_independent(seed_step, position_step):
    counters = [(seed, 300 + position) for seed in range(100) for position in range(200)]
    here = torch.tensor([uniform(s, p) for s, p in counters], dtype=torch.float64)
    there = torch.tensor(
        [uniform(s + seed_step, p + position_step) for s, p in counters], dtype=torch.float64
    )
    correlation = torch.corrcoef(torch.stack([here, there]))[0, 1]
    assert abs(correlation) < 5 / math.sqrt(len(counters))
    cells = (here * 10).long() * 10 + (there * 10).long()
    counts = torch.bincount(cells, minlength=100).double()
    chi_square = ((counts - 200) ** 2 / 200).sum()
    assert abs(chi_square - 99) < 5 * math.sqrt(198)
