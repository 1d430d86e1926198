"""Qwen 2 and 2.5: biases on query, key and value; windows on the upper layers of some (arXiv:2407.10671)."""

from __future__ import annotations

from octavo.families import rotary_decoder
from octavo.families.config_reader import ConfigReader
from octavo.families.family import Family, GgufReading
from octavo.model_spec import DecoderSpec


def read(config: ConfigReader) -> DecoderSpec:
    windows = rotary_decoder.read_layer_windows(config)
    return rotary_decoder.read_config(config, has_qkv_bias=True, windows=windows)


FAMILY = Family(
    name="qwen2",
    read=read,
    templates=rotary_decoder.config_templates,
    ignored_tensors=rotary_decoder.ROTARY_BUFFERS,
    gguf=GgufReading(read=rotary_decoder.read_gguf, templates=rotary_decoder.gguf_templates),
)
