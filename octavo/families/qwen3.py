"""Qwen 3, dense: each head's query and key are normed before they are rotated (arXiv:2505.09388)."""

from __future__ import annotations

from octavo.families import rotary_decoder
from octavo.families.config_reader import ConfigReader
from octavo.families.family import Family, GgufReading
from octavo.model_spec import DecoderSpec


def read(config: ConfigReader) -> DecoderSpec:
    # Here, unlike in llama, the width of a head is not hidden_size / num_attention_heads by default.
    config.require_int("head_dim")
    has_attention_bias = config.flag("attention_bias", default=False)
    return rotary_decoder.read_config(
        config,
        has_qkv_bias=has_attention_bias,
        has_output_bias=has_attention_bias,
        has_qk_norm=True,
        windows=rotary_decoder.read_layer_windows(config),
    )


FAMILY = Family(
    name="qwen3",
    read=read,
    templates=rotary_decoder.config_templates,
    ignored_tensors=rotary_decoder.ROTARY_BUFFERS,
    gguf=GgufReading(read=rotary_decoder.read_gguf, templates=rotary_decoder.gguf_templates),
)
