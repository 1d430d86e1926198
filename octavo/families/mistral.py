"""Mistral 7B: a llama whose every layer may see only a window of tokens (arXiv:2310.06825).

As GGUF it is of the architecture "llama".
"""

from __future__ import annotations

from octavo.families import rotary_decoder
from octavo.families.config_reader import ConfigReader
from octavo.families.family import Family
from octavo.model_spec import DecoderSpec

_DEFAULT_WINDOW = 4096


def read(config: ConfigReader) -> DecoderSpec:
    config.refuse("layer_types")
    # Null says that there is no window; silence says the first release's.
    is_stated = config.states("sliding_window")
    window = config.find_int("sliding_window") if is_stated else _DEFAULT_WINDOW
    windows = [window] * rotary_decoder.read_num_layers(config)
    return rotary_decoder.read_config(config, windows=windows)


FAMILY = Family(
    name="mistral",
    read=read,
    templates=rotary_decoder.config_templates,
    ignored_tensors=rotary_decoder.ROTARY_BUFFERS,
)
