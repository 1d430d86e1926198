"""What a GGUF file says of its model beyond plain settings: sizes and variants that its tensors show."""

from __future__ import annotations

from octavo.checkpoint.gguf import GgufFile
from octavo.errors import CheckpointError
from octavo.families.config_reader import ConfigReader


class GgufHeader:
    """One file's header, for the families.

    Attributes:
        architecture: llama.cpp's name for the family.
        metadata: the architecture's own settings ("block_count" is "llama.block_count").
        tokenizer: the settings under "tokenizer.ggml.".
    """

    def __init__(self, file: GgufFile) -> None:
        self._file = file
        architecture = ConfigReader(file.path, file.metadata).find_text("general.architecture")
        if not architecture:
            raise CheckpointError(file.path, "general.architecture is missing")
        self.architecture = architecture
        self.metadata = ConfigReader(file.path, file.metadata, prefix=f"{architecture}.")
        self.tokenizer = ConfigReader(file.path, file.metadata, prefix="tokenizer.ggml.")

    def has_tensor(self, name: str) -> bool:
        return name in self._file.tensors

    def num_rows(self, name: str) -> int:
        """Outermost extent of a tensor that the model cannot do without."""
        if name not in self._file.tensors:
            raise CheckpointError(self._file.path, "is missing", tensor=name)
        return self._file.tensors[name].shape[0]

    @property
    def vocab_size(self) -> int:
        # The embedding has the last word: the token list may lack the padding at its end.
        return self.num_rows("token_embd.weight")

    @property
    def is_head_tied(self) -> bool:
        return not self.has_tensor("output.weight")
