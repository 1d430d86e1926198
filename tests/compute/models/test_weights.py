"""load_weights: every value where it belongs, and no half-loaded model whatever the files look like."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import gguf
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from octavo.checkpoint.source import resolve_model
from octavo.compute.models.weights import load_weights
from octavo.errors import CheckpointError, OctavoError, UnsupportedModelError
from octavo.families import describe_model
from tests.tiny_models import VARIANTS, make_tiny_model, write_gguf

CPU = torch.device("cpu")


def _load(path: Path | None, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    description = describe_model(resolve_model(None if path is None else str(path)))
    weights = load_weights(description, dtype=dtype, device=CPU)
    shapes = description.spec.parameter_shapes()
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == shapes
    assert all(weight.is_contiguous() and weight.dtype == dtype for weight in weights.values())
    return weights


def _change(folder: Path, **changes: torch.Tensor | None) -> Path:
    """Replace tensors of model.safetensors (`__` stands for a dot); None takes one away."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name, tensor in changes.items():
        tensors.pop(name.replace("__", "."), None)
        if tensor is not None:
            tensors[name.replace("__", ".")] = tensor
    save_file(tensors, path)
    return folder


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_values_come_from_the_file_once(variant: str, tmp_path: Path) -> None:
    folder = make_tiny_model(variant, tmp_path)
    loaded = torch.cat([weight.flatten() for weight in _load(folder).values()])
    stored = torch.cat([tensor.flatten() for tensor in load_file(folder / "model.safetensors").values()])
    assert torch.equal(loaded.sort().values, stored.sort().values)


def test_llama_names(tmp_path: Path) -> None:
    folder = make_tiny_model("llama", tmp_path)
    weights, stored = _load(folder), load_file(folder / "model.safetensors")
    assert torch.equal(
        weights["layers.1.attention.key.weight"], stored["model.layers.1.self_attn.k_proj.weight"]
    )
    assert torch.equal(weights["layers.2.mlp.gate.weight"], stored["model.layers.2.mlp.gate_proj.weight"])
    assert torch.equal(
        weights["layers.0.mlp_norm.weight"], stored["model.layers.0.post_attention_layernorm.weight"]
    )
    assert torch.equal(weights["head.weight"], stored["lm_head.weight"])


def test_gpt2_is_split_and_transposed(tmp_path: Path) -> None:
    folder = make_tiny_model("gpt2", tmp_path)
    weights, stored = _load(folder), load_file(folder / "model.safetensors")
    fused = stored["transformer.h.1.attn.c_attn.weight"].T
    fused_bias = stored["transformer.h.1.attn.c_attn.bias"]
    for index, part in enumerate(("query", "key", "value")):
        rows = slice(48 * index, 48 * (index + 1))
        assert torch.equal(weights[f"layers.1.attention.{part}.weight"], fused[rows])
        assert torch.equal(weights[f"layers.1.attention.{part}.bias"], fused_bias[rows])
    assert torch.equal(weights["layers.1.mlp.up.weight"], stored["transformer.h.1.mlp.c_fc.weight"].T)


@pytest.mark.parametrize(("variant", "prefix"), [("gpt2", "transformer."), ("opt", "model.")])
def test_bare_names_are_found_too(variant: str, prefix: str, tmp_path: Path) -> None:
    folder = make_tiny_model(variant, tmp_path)
    expected = _load(folder)
    path = folder / "model.safetensors"
    save_file({name.removeprefix(prefix): tensor for name, tensor in load_file(path).items()}, path)
    for name, weight in _load(folder).items():
        assert torch.equal(weight, expected[name])


@pytest.mark.parametrize(
    "variant",
    ["llama", "llama-tied", "llama-biases", "llama-multi-query", "mistral", "qwen2", "qwen3", "gpt2"],
)
def test_gguf_holds_the_same_values_in_our_order(variant: str, tmp_path: Path) -> None:
    folder = make_tiny_model(variant, tmp_path / "folder")
    expected, found = _load(folder), _load(write_gguf(folder, tmp_path / "tiny.gguf"))
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        assert torch.equal(weight, found[name]), name


def test_gguf_rope_factors(tmp_path: Path) -> None:
    folder = make_tiny_model("llama", tmp_path / "folder")
    weights = _load(write_gguf(folder, tmp_path / "tiny.gguf", rope_factors=[1, 1, 2, 8]))
    assert weights["positions.rope_factors"].tolist() == [1, 1, 2, 8]


@pytest.mark.parametrize("chunk_values", [1, 700, 1 << 20])
@pytest.mark.parametrize("quantization", ["Q4_0", "Q5_1", "Q8_0", "BF16"])
def test_chunks_do_not_change_values(
    quantization: str, chunk_values: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octavo.compute.models.weights._CHUNK_VALUES", chunk_values)
    folder = make_tiny_model(
        "llama", tmp_path / "f", hidden_size=96, intermediate_size=64, num_hidden_layers=1
    )
    ggml_type = gguf.GGMLQuantizationType[quantization]
    weights = _load(write_gguf(folder, tmp_path / "tiny.gguf", quantization=ggml_type))
    for name, stored in load_file(folder / "model.safetensors").items():
        if name.endswith("q_proj.weight"):
            expected = gguf.dequantize(gguf.quantize(stored.numpy(), ggml_type), ggml_type)
            # Rows were permuted before they were quantised; blocks lie within rows, so this is the same.
            assert torch.equal(weights["layers.0.attention.query.weight"], torch.from_numpy(expected))


@pytest.mark.parametrize("stored_dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtypes(stored_dtype: torch.dtype, dtype: torch.dtype, tmp_path: Path) -> None:
    folder = make_tiny_model("llama", tmp_path)
    path = folder / "model.safetensors"
    stored = {name: tensor.to(stored_dtype) for name, tensor in load_file(path).items()}
    save_file(stored, path)
    assert torch.equal(_load(folder, dtype)["head.weight"], stored["lm_head.weight"].to(dtype))


def _shard(folder: Path) -> Path:
    """Split model.safetensors in two, with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {}
    for shard, part in (("a.safetensors", names[::2]), ("b.safetensors", names[1::2])):
        save_file({name: tensors[name] for name in part}, folder / shard)
        weight_map |= dict.fromkeys(part, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def test_shards(tmp_path: Path) -> None:
    folder = make_tiny_model("qwen3", tmp_path)
    expected = _load(folder)
    found = _load(_shard(folder))
    assert all(torch.equal(weight, found[name]) for name, weight in expected.items())


def test_an_index_that_names_the_wrong_shard(tmp_path: Path) -> None:
    folder = _shard(make_tiny_model("llama", tmp_path))
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["lm_head.weight"] = "b.safetensors"
    path.write_text(json.dumps(index))
    with pytest.raises(
        CheckpointError, match=r"b\.safetensors: tensor 'lm_head.weight': is not in the shard"
    ):
        _load(folder)


def test_harmless_extras_are_ignored(tmp_path: Path) -> None:
    extras = {f"transformer__h__{layer}__attn__bias": torch.ones(1, 1, 4, 4).bool() for layer in range(3)}
    _load(_change(make_tiny_model("gpt2", tmp_path / "a"), **extras, lm_head__weight=torch.zeros(300, 48)))
    inv_freq = torch.ones(4)
    folder = make_tiny_model("llama", tmp_path / "b")
    _load(_change(folder, model__layers__0__self_attn__rotary_emb__inv_freq=inv_freq))


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    folder = make_tiny_model("llama", tmp_path)
    with pytest.raises(CheckpointError, match=r"tensor 'model\.norm\.weight': is missing$"):
        _load(_change(folder, model__norm__weight=None))
    with pytest.raises(CheckpointError, match=r"is missing \(and 1 others\)"):
        _load(_change(folder, lm_head__weight=None))


def test_unexpected_tensors_are_named(tmp_path: Path) -> None:
    folder = make_tiny_model("llama", tmp_path)
    bias = "model__layers__1__self_attn__q_proj__bias"
    with pytest.raises(CheckpointError, match=r"q_proj\.bias': is not part of a llama model as its settings"):
        _load(_change(folder, **{bias: torch.ones(48)}))


def test_wrong_shapes_are_named(tmp_path: Path) -> None:
    folder = make_tiny_model("gpt2", tmp_path)
    name = "transformer.h.0.attn.c_attn.weight"
    with pytest.raises(CheckpointError) as caught:
        _load(_change(folder, **{name.replace(".", "__"): torch.ones(48, 96)}))
    path = folder / "model.safetensors"
    reason = "has shape [48, 96], but the settings ask for [48, 144]"
    assert str(caught.value) == f"{path}: tensor {name!r}: {reason}"


def test_other_number_formats_are_refused_by_name(tmp_path: Path) -> None:
    folder = make_tiny_model("llama", tmp_path)
    with pytest.raises(UnsupportedModelError, match=r"'model\.norm\.weight': number format F64 is not read"):
        _load(_change(folder, model__norm__weight=torch.ones(48, dtype=torch.float64)))


@pytest.mark.parametrize(
    ("kept", "reason"),
    [
        *[(kept, r"the file ends inside the header") for kept in (0, 4, 8, 100)],
        (-1, r"tensor 'model\.norm\.weight': its data ends at byte"),
    ],
)
def test_a_cut_safetensors_file(kept: int, reason: str, tmp_path: Path) -> None:
    folder = make_tiny_model("llama", tmp_path)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    started = time.perf_counter()
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: {reason}") as caught:
        _load(folder)
    assert time.perf_counter() - started < 2
    assert "\n" not in str(caught.value)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("kind", ["gguf", "safetensors"])
def test_changed_header_bytes_raise_only_our_errors(
    kind: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"fuzz-{kind}"
    original = folder / "original"
    if not folder.exists():
        make_tiny_model("llama", folder)
        if kind == "gguf":
            write_gguf(folder, original)
        else:
            original.write_bytes((folder / "model.safetensors").read_bytes())
    content = bytearray(original.read_bytes())
    header_size = 2500
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, header_size))] = data.draw(st.integers(0, 255))
    path = folder / ("fuzzed.gguf" if kind == "gguf" else "model.safetensors")
    path.write_bytes(content)
    try:
        _load(path if kind == "gguf" else folder)
    except OctavoError as error:
        assert "\n" not in str(error)


def test_progress_counts_values(tmp_path: Path) -> None:
    description = describe_model(resolve_model(str(make_tiny_model("opt", tmp_path))))
    calls: list[tuple[int, int]] = []
    load_weights(
        description,
        dtype=torch.float32,
        device=CPU,
        on_progress=lambda done, total: calls.append((done, total)),
    )
    total = description.spec.num_parameters
    assert calls[-1] == (total, total)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert len(calls) == len(description.spec.parameter_shapes())


def test_the_starter_loads_fast_and_leaves_nothing_else_in_memory() -> None:
    process = psutil.Process()
    description = describe_model(resolve_model(None))
    num_threads = torch.get_num_threads()
    before_bytes = process.memory_info().rss
    highest = _HighestMemory(process)
    with highest:
        started = process.cpu_times().user
        weights = load_weights(description, dtype=torch.float32, device=CPU)
        cpu_seconds = process.cpu_times().user - started
    weight_bytes = sum(weight.nbytes for weight in weights.values())
    assert weight_bytes == 134_515_008 * 4
    assert cpu_seconds < 2  # about 0.2 on an idle core
    assert process.memory_info().rss - before_bytes < weight_bytes + (48 << 20)
    assert highest.num_bytes - before_bytes < weight_bytes + (64 << 20)
    assert torch.get_num_threads() == num_threads


class _HighestMemory:
    """Watches a process's memory while the block runs."""

    def __init__(self, process: psutil.Process) -> None:
        self.num_bytes = 0
        self._process = process
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.num_bytes = max(self.num_bytes, self._process.memory_info().rss)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()
