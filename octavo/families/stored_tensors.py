"""Matches a model's parameters with the tensors that its checkpoint stores, by the headers alone.

So that a missing, surplus or misshapen tensor is told in milliseconds, before any tensor library loads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from octavo.errors import CheckpointError
from octavo.families.weight_map import TensorSource
from octavo.model_spec import DecoderSpec


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """What a header says of a tensor; shape with the outermost dim first."""

    shape: tuple[int, ...]
    path: Path


def match_stored_tensors(
    spec: DecoderSpec,
    weight_map: Mapping[str, TensorSource],
    stored: Mapping[str, StoredTensor],
    *,
    ignored_tensors: Iterable[str],
    family: str,
    path: Path,
) -> dict[str, str]:
    """Parameter -> the name of the stored tensor that it comes from.

    Args:
        ignored_tensors: patterns of stored tensors that are known and not needed (whole names).
        family, path: of the model, for the error's wording.

    Raises:
        CheckpointError: a tensor is missing, unexpected or of the wrong shape; names the first.
    """
    shapes = spec.parameter_shapes()
    matches: dict[str, str] = {}
    missing: list[str] = []
    for name in shapes:
        candidates = weight_map[name].names
        found = next((candidate for candidate in candidates if candidate in stored), None)
        if found is None:
            missing.append(candidates[0])
        else:
            matches[name] = found
    if missing:
        raise CheckpointError(path, f"is missing{_and_others(missing)}", tensor=missing[0])
    used = set(matches.values())
    ignored = [re.compile(pattern) for pattern in ignored_tensors]
    unexpected = [
        name
        for name in stored
        if name not in used and not any(pattern.fullmatch(name) for pattern in ignored)
    ]
    if unexpected:
        reason = f"is not part of a {family} model as its settings describe it{_and_others(unexpected)}"
        raise CheckpointError(stored[unexpected[0]].path, reason, tensor=unexpected[0])
    for name, shape in shapes.items():
        tensor, wanted = stored[matches[name]], weight_map[name].stored_shape(shape)
        if tensor.shape != wanted:
            reason = f"has shape {list(tensor.shape)}, but the settings ask for {list(wanted)}"
            raise CheckpointError(tensor.path, reason, tensor=matches[name])
    return matches


def _and_others(names: list[str]) -> str:
    return f" (and {len(names) - 1} others)" if len(names) > 1 else ""
