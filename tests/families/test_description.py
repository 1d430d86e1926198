"""describe_model: right specs from both kinds of file, refusals by name, damage in one line."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.checkpoint.source import resolve_model
from octavo.errors import CheckpointError, OctavoError, UnsupportedModelError
from octavo.families import ModelDescription, describe_model
from octavo.model_spec import (
    Activation,
    LearnedPositionsSpec,
    LinearRopeScaling,
    Llama3RopeScaling,
    NormKind,
    RopeFactorTensor,
    RopeSpec,
)
from tests.tiny_models import VARIANTS, make_tiny_model, write_gguf


def _describe(path: Path) -> ModelDescription:
    return describe_model(resolve_model(str(path)))


def _describe_changed(folder: Path, changes: dict[str, Any]) -> ModelDescription:
    """The description after `changes` to config.json, where `...` takes a key away."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))
    return _describe(folder)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_source_for_every_parameter(variant: str, tmp_path: Path) -> None:
    description = _describe(make_tiny_model(variant, tmp_path))
    assert description.family == VARIANTS[variant][0]
    assert description.weight_map.keys() == description.spec.parameter_shapes().keys()
    assert description.eos_token_ids == (2,)


def test_llama(tmp_path: Path) -> None:
    spec = _describe(make_tiny_model("llama-biases", tmp_path)).spec
    assert (spec.vocab_size, spec.hidden_size, spec.num_layers, spec.max_positions) == (300, 48, 3, 512)
    assert spec.norm.kind is NormKind.RMS
    assert spec.norm.eps == 1e-5
    assert spec.positions == RopeSpec(theta=10000.0)
    attention = spec.attention
    assert (attention.num_heads, attention.num_kv_heads, attention.head_dim) == (6, 2, 8)
    assert attention.scale == 8**-0.5
    assert attention.has_qkv_bias
    assert attention.has_output_bias
    assert spec.mlp.has_bias
    assert spec.mlp.is_gated
    assert not spec.is_head_tied


def test_windows(tmp_path: Path) -> None:
    def windows(name: str, **overrides: Any) -> tuple[int | None, ...]:
        folder = make_tiny_model(name, tmp_path / f"{name}-{len(overrides)}", **overrides)
        return _describe(folder).spec.attention.window_by_layer

    assert windows("mistral") == (24, 24, 24)
    assert windows("mistral-full-attention") == (None, None, None)
    assert windows("qwen2") == (None, None, None)
    assert windows("qwen2-window") == (None, 16, 16)
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    assert windows("qwen3", use_sliding_window=True, sliding_window=8, layer_types=kinds) == (8, None, 8)


def test_windows_without_layer_types(tmp_path: Path) -> None:
    folder = make_tiny_model("qwen2-window", tmp_path)
    assert _describe_changed(folder, {"layer_types": ...}).spec.attention.window_by_layer == (None, 16, 16)


def test_mistral_that_says_nothing_of_windows_has_the_first_one(tmp_path: Path) -> None:
    folder = make_tiny_model("mistral", tmp_path)
    assert _describe_changed(folder, {"sliding_window": ...}).spec.attention.window_by_layer == (4096,) * 3


def test_opt_and_galactica(tmp_path: Path) -> None:
    spec = _describe(make_tiny_model("opt", tmp_path / "opt")).spec
    assert spec.positions == LearnedPositionsSpec(num_positions=512, offset=2)
    assert (spec.norm.kind, spec.norm.has_bias, spec.mlp.activation) == (
        NormKind.LAYER,
        True,
        Activation.RELU,
    )
    assert spec.is_head_tied
    spec = _describe(make_tiny_model("galactica", tmp_path / "galactica")).spec
    assert not any((spec.norm.has_weight, spec.norm.has_bias, spec.mlp.has_bias, spec.attention.has_qkv_bias))
    assert spec.mlp.activation is Activation.GELU


def test_gpt2(tmp_path: Path) -> None:
    spec = _describe(make_tiny_model("gpt2", tmp_path / "a")).spec
    assert spec.positions == LearnedPositionsSpec(num_positions=512)
    assert (spec.mlp.intermediate_size, spec.mlp.activation) == (192, Activation.GELU_TANH)
    assert spec.attention.scale == 8**-0.5
    assert _describe(make_tiny_model("gpt2-unscaled", tmp_path / "b")).spec.attention.scale == 1.0


_LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_LLAMA3_SCALING = Llama3RopeScaling(
    factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=64
)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, RopeSpec(theta=10000.0)),
        ({"rope_theta": 5e5}, RopeSpec(theta=5e5)),
        ({"rope_theta": 5e5, "rope_scaling": None}, RopeSpec(theta=5e5)),
        (
            {"rope_scaling": {"type": "linear", "factor": 4}},
            RopeSpec(theta=10000.0, scaling=LinearRopeScaling(factor=4.0)),
        ),
        (
            {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **_LLAMA3}},
            RopeSpec(theta=5e5, scaling=_LLAMA3_SCALING),
        ),
        (
            {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **_LLAMA3}},
            RopeSpec(theta=5e5, scaling=_LLAMA3_SCALING),
        ),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, RopeSpec(theta=1e6)),
    ],
)
def test_both_spellings_of_rotary_positions(
    changes: dict[str, Any], expected: RopeSpec, tmp_path: Path
) -> None:
    folder = make_tiny_model("llama", tmp_path)
    assert _describe_changed(folder, {"rope_parameters": ..., **changes}).spec.positions == expected


_REFUSED: list[tuple[str, dict[str, Any], str]] = [
    *(
        ("llama", {"rope_parameters": {"rope_type": kind, "factor": 2.0}}, f"rope_type '{kind}'")
        for kind in ("yarn", "dynamic", "longrope", "mrope")
    ),
    ("llama", {"rope_scaling": {"type": "su", "factor": 2.0}}, r"rope_scaling\.type 'su'"),
    ("llama", {"partial_rotary_factor": 0.5}, "a part of each head"),
    ("llama", {"rope_parameters": {"full_attention": {}}}, "different kinds of layer"),
    ("llama", {"quantization_config": {"quant_method": "awq"}}, "quantization_config"),
    ("llama", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
    ("llama", {"hidden_act": "quick_gelu"}, "hidden_act 'quick_gelu'"),
    ("llama", {"num_key_value_heads": [2, 1, 2]}, "a different num_key_value_heads in each layer"),
    ("llama", {"head_dim": 7}, "odd width"),
    ("qwen3", {"num_experts": 8}, "num_experts"),
    ("qwen2", {"layer_types": ["linear_attention"] * 3}, "linear_attention"),
    ("mistral", {"layer_types": ["full_attention"] * 3}, "layer_types"),
    ("opt", {"word_embed_proj_dim": 24}, "word_embed_proj_dim"),
    ("opt", {"do_layer_norm_before": False}, "do_layer_norm_before"),
    ("opt", {"_remove_final_layer_norm": True}, "_remove_final_layer_norm"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention"),
    ("llama", {"model_type": "mamba"}, r"unknown model family 'mamba' \(known: llama, opt, gpt2"),
]


@pytest.mark.parametrize(("family", "changes", "expected"), _REFUSED)
def test_unsupported_variants_are_refused_by_name(
    family: str, changes: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    folder = make_tiny_model(family, tmp_path)
    with pytest.raises(UnsupportedModelError, match=expected) as caught:
        _describe_changed(folder, changes)
    assert str(tmp_path / "config.json") in str(caught.value)


_INVALID: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {"hidden_size": ...}, "hidden_size is missing"),
    ("llama", {"hidden_size": "48"}, "hidden_size is '48', not a whole number"),
    ("llama", {"hidden_size": True}, "hidden_size is True"),
    ("llama", {"num_hidden_layers": 0}, "num_hidden_layers is 0"),
    ("llama", {"num_hidden_layers": 10**12}, "num_hidden_layers is 1000000000000"),
    ("llama", {"vocab_size": 10**400}, "vocab_size is a number of absurd size"),
    ("llama", {"num_attention_heads": 5, "head_dim": ...}, "hidden_size .48. is not a multiple"),
    ("llama", {"num_key_value_heads": 4}, r"num_key_value_heads \(4\) does not divide"),
    ("llama", {"rms_norm_eps": 0}, "rms_norm_eps is 0"),
    ("llama", {"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
    ("llama", {"rms_norm_eps": 10**400}, "rms_norm_eps is a number of absurd size"),
    ("llama", {"attention_bias": "yes"}, "attention_bias is 'yes', not true or false"),
    ("llama", {"rope_parameters": 7}, "rope_parameters is 7, not an object"),
    ("llama", {"rope_parameters": {"rope_type": "linear"}}, r"rope_parameters\.factor is missing"),
    ("llama", {"model_type": ...}, "model_type is missing"),
    ("llama", {"model_type": 7}, "model_type is 7, not text"),
    ("llama3-rope", {"rope_parameters": {"rope_type": "llama3", **_LLAMA3, "low_freq_factor": 4}}, "below"),
    ("qwen2-window", {"layer_types": ["full_attention"]}, "layer_types has 1 entries for 3 layers"),
    ("qwen2-window", {"sliding_window": None}, "sliding_window is missing"),
    ("qwen2", {"layer_types": ["sliding_attention"] * 3}, "no sliding_window is in use"),
    ("qwen2", {"layer_types": [1, 2, 3]}, "entries that are not text"),
    ("qwen3", {"head_dim": ...}, "head_dim is missing"),
]


@pytest.mark.parametrize(("family", "changes", "expected"), _INVALID)
def test_invalid_settings_name_file_and_key(
    family: str, changes: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    folder = make_tiny_model(family, tmp_path)
    with pytest.raises(CheckpointError, match=expected) as caught:
        _describe_changed(folder, changes)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "config.json"))
    assert "\n" not in message


@pytest.mark.parametrize("content", ["", "{", "null", "[1]", "\udcff", '"x"', "{" * 100_000])
def test_a_config_that_is_no_object(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(CheckpointError, match=r"config\.json: (not valid JSON|holds a JSON)") as caught:
        _describe(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_shard_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    folder = make_tiny_model("llama", tmp_path)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"00001-of-00002\.safetensors.*this shard is missing"):
        _describe(folder)


def test_generation_config(tmp_path: Path) -> None:
    folder = make_tiny_model("llama", tmp_path)
    generation = {
        "do_sample": True,
        "temperature": 0.6,
        "top_p": 0.9,
        "top_k": 20,
        "eos_token_id": [5, 2, 999],
    }
    (folder / "generation_config.json").write_text(json.dumps(generation))
    description = _describe(folder)
    assert description.default_sampling == {"temperature": 0.6, "top_p": 0.9, "top_k": 20}
    assert description.eos_token_ids == (5, 2)  # 999 is beyond the vocabulary: it can never come
    (folder / "generation_config.json").write_text(json.dumps(generation | {"do_sample": False}))
    assert _describe(folder).default_sampling == {}
    (folder / "generation_config.json").unlink()
    assert _describe(folder).eos_token_ids == (2,)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": "</s>"}))
    with pytest.raises(CheckpointError, match="eos_token_id is '</s>'"):
        _describe(folder)


_GGUF_VARIANTS = [
    "llama",
    "llama-tied",
    "llama-biases",
    "llama-wide-heads",
    "llama-linear-rope",
    "mistral",
    "qwen2",
    "qwen3",
    "gpt2",
]


@pytest.mark.parametrize("variant", _GGUF_VARIANTS)
def test_gguf_describes_the_same_model(variant: str, tmp_path: Path) -> None:
    folder = make_tiny_model(variant, tmp_path / "folder")
    expected = _describe(folder).spec
    description = _describe(write_gguf(folder, tmp_path / "tiny.gguf"))
    spec = description.spec
    # GGUF keeps epsilons in single precision.
    assert spec.norm.eps == pytest.approx(expected.norm.eps, rel=1e-6)
    qk_norm = expected.attention.qk_norm
    assert (spec.attention.qk_norm is None) == (qk_norm is None)
    attention = replace(spec.attention, qk_norm=qk_norm)
    assert replace(spec, norm=expected.norm, attention=attention) == expected
    assert description.weight_map.keys() == spec.parameter_shapes().keys()
    assert description.eos_token_ids == (2,)


def test_gguf_rope_factors(tmp_path: Path) -> None:
    folder = make_tiny_model("llama", tmp_path / "folder")
    description = _describe(write_gguf(folder, tmp_path / "tiny.gguf", rope_factors=[1, 1, 2, 8]))
    assert description.spec.positions == RopeSpec(theta=10000.0, scaling=RopeFactorTensor())
    assert description.weight_map["positions.rope_factors"].names == ("rope_freqs.weight",)


def _gguf_with(path: Path, architecture: str, **entries: Any) -> Path:
    """A GGUF llama without tensors but the embedding, and with `entries` (dots written as `__`)."""
    settings = {
        "block_count": 2,
        "context_length": 64,
        "embedding_length": 8,
        "feed_forward_length": 16,
        "attention.head_count": 2,
    } | {key.replace("__", "."): value for key, value in entries.items()}
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in settings.items():
        name = f"{architecture}.{key}"
        if isinstance(value, str):
            writer.add_string(name, value)
        elif isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        else:
            writer.add_float32(name, value)
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_tensor("token_embd.weight", gguf.quants.np.zeros((16, 8), dtype="float32"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({"expert_count": 8}, r"llama\.expert_count"),
        ({"rope__scaling__type": "yarn"}, "'yarn'"),
        ({"rope__dimension_count": 2}, "a part of each head"),
        ({"attention__head_count_kv": [1, 2]}, r"a different llama\.attention\.head_count_kv in each layer"),
        ({"attention__key_length": 4, "attention__value_length": 8}, "different lengths"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
    ],
)
def test_unsupported_gguf_variants(entries: dict[str, Any], expected: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=expected):
        _describe(_gguf_with(tmp_path / "m.gguf", "llama", **entries))


def test_unknown_gguf_architecture(tmp_path: Path) -> None:
    with pytest.raises(
        UnsupportedModelError, match=r"unknown GGUF architecture 'rwkv6' \(known: llama, gpt2"
    ):
        _describe(_gguf_with(tmp_path / "m.gguf", "rwkv6"))


def test_the_starter_in_time_and_without_torch() -> None:
    code = (
        "import sys, time; from octavo.checkpoint.source import resolve_model; "
        "from octavo.families import describe_model; started = time.perf_counter(); "
        "description = describe_model(resolve_model(None)); "
        "print(time.perf_counter() - started, description.spec.num_parameters, "
        "not {'torch', 'numpy', 'msgspec'} & set(sys.modules))"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    seconds, num_parameters, is_light = output.split()
    assert float(seconds) < 1.0
    assert (num_parameters, is_light) == ("134515008", "True")


_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(
        st.sampled_from(["rope_type", "type", "factor", "rope_theta"]), st.integers(), max_size=3
    ),
)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("variant", ["llama3-rope", "qwen2-window", "opt", "gpt2"])
def test_any_settings_raise_only_our_errors(
    variant: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"fuzz-{variant}"
    if not folder.exists():
        make_tiny_model(variant, folder)
        (folder / "original.json").write_bytes((folder / "config.json").read_bytes())
    config = json.loads((folder / "original.json").read_text())
    for key in data.draw(st.lists(st.sampled_from(sorted(config)), min_size=1, max_size=3)):
        config[key] = data.draw(_VALUES)
    (folder / "config.json").write_text(json.dumps(config))
    started = time.perf_counter()
    try:
        _describe(folder)
    except OctavoError as error:
        assert "\n" not in str(error)
    assert time.perf_counter() - started < 2


def test_a_missing_or_misshapen_tensor_is_told_before_torch_loads(tmp_path: Path) -> None:
    folder = make_tiny_model("llama", tmp_path)
    config_path = folder / "config.json"
    config = json.loads(config_path.read_text())
    config_path.write_text(json.dumps(config | {"intermediate_size": config["intermediate_size"] + 1}))
    program = (
        "import sys\n"
        "from octavo.checkpoint.source import resolve_model\n"
        "from octavo.errors import CheckpointError\n"
        "from octavo.families import describe_model\n"
        "try:\n"
        "    describe_model(resolve_model(sys.argv[1]))\n"
        "except CheckpointError as error:\n"
        "    print(error, 'torch' in sys.modules)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True
    )
    assert "model.safetensors: tensor 'model.layers.0.mlp" in run.stdout
    assert run.stdout.endswith(" False\n")
