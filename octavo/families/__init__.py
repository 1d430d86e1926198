"""What models look like, as data: settings and headers in, a DecoderSpec and tensor names out.

Imports no tensor library.
"""

from octavo.families.description import FAMILIES, ModelDescription, describe_model
from octavo.families.weight_map import RowRange, TensorSource

__all__ = ["FAMILIES", "ModelDescription", "RowRange", "TensorSource", "describe_model"]
