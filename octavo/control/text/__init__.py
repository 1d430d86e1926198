"""Text and tokens: tokenizer, chat template, incremental detokenisation, stop strings.

Independent of the rest of the control plane: knows no scheduler, no cache, no tensors.
"""
