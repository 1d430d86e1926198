"""Files of panels: the second start computes the same from them, and no damage goes unseen."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
import torch

from octavo.checkpoint.source import resolve_model
from octavo.compute.executor.worker import Worker, open_packing_cache
from octavo.compute.kernels import for_device, native_table, reference_table
from octavo.compute.kernels.cpu.library import NativeLibraryError, load_library
from octavo.compute.kernels.cpu.linear import LAYOUT_VERSION, LOW_BIT_TYPES
from octavo.config import ComputeConfig
from octavo.errors import ConfigError
from octavo.families import ModelDescription, describe_model
from octavo.step import SequenceSlice, StepPlan
from tests.compute.kernels.lowbit_case import random_matrix, with_scale
from tests.tiny_models import make_tiny_model, write_gguf

pytestmark = pytest.mark.skipif(
    for_device(torch.device("cpu")).name == "reference", reason="the native kernels are not built"
)


@pytest.fixture
def model(tmp_path: Path) -> ModelDescription:
    folder = make_tiny_model("llama", tmp_path / "model", hidden_size=96, intermediate_size=160)
    path = write_gguf(folder, tmp_path / "tiny.gguf", quantization=gguf.GGMLQuantizationType.Q8_0)
    return describe_model(resolve_model(str(path)))


def _load(model: ModelDescription, cache: Path | None, **settings: str) -> tuple[Worker, torch.Tensor]:
    folder = None if cache is None else str(cache)
    compute = ComputeConfig(device="cpu", num_threads=1, repack_cache=folder, **settings)
    worker = Worker.load(model, compute)
    worker.allocate_kv(4, 16)
    plan = StepPlan(0, [SequenceSlice(0, [5, 17, 200, 31, 8], 0, [0])])
    return worker, torch.cat(list(worker.all_logits(plan)))


def test_the_second_start_computes_the_same_from_the_file(model: ModelDescription, tmp_path: Path) -> None:
    cache = tmp_path / "made" / "for it"
    _, plain = _load(model, None)
    first, made = _load(model, cache)
    (file,) = cache.iterdir()
    written = file.stat()
    second, kept = _load(model, cache)
    assert torch.equal(plain, made) and torch.equal(plain, kept)
    assert first.packing.num_bytes == second.packing.num_bytes
    assert file.stat().st_mtime_ns == written.st_mtime_ns
    assert written.st_size >= first.packing.num_bytes


def test_other_formats_and_other_weights_have_files_of_their_own(
    model: ModelDescription, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    _load(model, cache)
    _load(model, cache, dtype="float32")
    assert len(list(cache.iterdir())) == 2
    status = model.source.path.stat()
    os.utime(model.source.path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    _load(model, cache)
    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: content[:-1], "bytes instead of"),
        (lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:], "checksum"),
        (lambda content: b"x" + content[1:], "does not begin"),
        (lambda content: content[:16] + b"\xff" * 8 + content[24:], "header"),
        (lambda content: content[:24] + b"!" + content[25:], "Expecting"),
        (lambda content: b"", "empty"),
    ],
)
def test_a_damaged_file_is_told_in_one_line_and_made_anew(
    model: ModelDescription,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[bytes], bytes],
    reason: str,
) -> None:
    cache = tmp_path / "cache"
    _, expected = _load(model, cache)
    (file,) = cache.iterdir()
    content = file.read_bytes()
    file.write_bytes(damage(content))
    with caplog.at_level(logging.WARNING):
        _, found = _load(model, cache)
    assert torch.equal(found, expected)
    (record,) = caplog.records
    assert reason in record.getMessage() and "\n" not in record.getMessage()
    assert file.read_bytes() == content
    assert list(cache.iterdir()) == [file]


def test_where_nothing_is_laid_out_it_is_refused(model: ModelDescription, tmp_path: Path) -> None:
    compute = ComputeConfig(repack_cache=str(tmp_path))
    with pytest.raises(ConfigError, match="--repack-cache needs the native CPU kernels: torch alone"):
        open_packing_cache(model, compute, reference_table("torch alone"))


def test_a_folder_that_is_a_file_is_refused(model: ModelDescription) -> None:
    with pytest.raises(ConfigError, match=r"--repack-cache .*tiny\.gguf"):
        _load(model, model.source.path)


def test_the_layout_version_tells_of_every_change_of_layout() -> None:
    """If this fails, panels lie differently than files hold them: raise LAYOUT_VERSION and note the hash."""
    try:
        table = native_table(load_library(isa_name="generic"))
    except NativeLibraryError as error:
        pytest.skip(str(error))
    digest = hashlib.sha256()
    kinds = sorted(LOW_BIT_TYPES, key=lambda kind: kind.name)
    matrices = [with_scale(random_matrix(kind, 19, 512), 0.5) for kind in kinds]
    plain = torch.arange(19 * 8, dtype=torch.float32).view(19, 8)
    for matrix in [*matrices, plain, plain.half(), plain.bfloat16()]:
        for part in table.pack_weight([matrix]).parts:
            digest.update(part.data.flatten().view(torch.uint8).numpy().tobytes())
    assert (LAYOUT_VERSION, digest.hexdigest()[:16]) == (1, "ce0d18004830dffc")
