"""Llama 1 to 3 and everything built alike: SmolLM2, TinyLlama, Vicuna, Yi...

GGUF's architecture "llama" also covers mistral.
"""

from __future__ import annotations

from octavo.families import rotary_decoder
from octavo.families.config_reader import ConfigReader
from octavo.families.family import Family, GgufReading
from octavo.model_spec import DecoderSpec


def read(config: ConfigReader) -> DecoderSpec:
    has_attention_bias = config.flag("attention_bias", default=False)
    return rotary_decoder.read_config(
        config,
        has_qkv_bias=has_attention_bias,
        has_output_bias=has_attention_bias,
        has_mlp_bias=config.flag("mlp_bias", default=False),
    )


FAMILY = Family(
    name="llama",
    read=read,
    templates=rotary_decoder.config_templates,
    ignored_tensors=rotary_decoder.ROTARY_BUFFERS,
    gguf=GgufReading(read=rotary_decoder.read_gguf, templates=rotary_decoder.interleaved_gguf_templates),
)
