"""Loads the native library and says why not, where it cannot. Owns the C interface's types.

ctypes releases the interpreter lock during each call, so other Python threads go on.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from pathlib import Path

from octavo.compute.kernels.cpu.scratch import Scratch
from octavo.compute.kernels.cpu.sources import LIBRARY_PATH, hash_sources

BUILD_COMMAND = "python -m octavo.compute.kernels.cpu.build"
ISAS = ("avx512vnni", "avx512", "avx2", "neon", "generic")  # best first

_POINTER, _INT32, _INT64, _FLOAT = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_float
_WEIGHT = (_INT32, _POINTER, _POINTER, _INT64, _INT64)
_INPUTS = (_INT32, _POINTER, _FLOAT, _POINTER, _INT64, _INT64)
_ARGUMENTS = {
    "octavo_paged_attention": (
        *[_POINTER, _POINTER, _INT64, _INT64],
        *[_POINTER] * 5,
        *[_INT64, _POINTER, _INT64, _INT64],
        *[_INT32] * 6,
        *[_FLOAT, _FLOAT, _INT32, _INT32],
    ),
    "octavo_write_kv": (
        *[_POINTER] * 3,
        *[_INT64] * 4,
        *[_POINTER] * 2,
        *[_INT32, _POINTER],
        *[_INT64] * 5,
        _INT32,
    ),
    "octavo_copy_blocks": (*[_POINTER] * 4, _INT64, _INT64),
    "octavo_rms_norm": (_POINTER, _POINTER, *[_INT64] * 5, _POINTER, _FLOAT, _POINTER, _INT32),
    "octavo_rotate": (
        _POINTER,
        *[_POINTER, _INT64, _INT64, _INT64] * 2,
        *[_POINTER] * 3,
        *[_INT64] * 3,
        _INT32,
    ),
    "octavo_linear": (_POINTER, *_WEIGHT, *_INPUTS, _POINTER, _INT64, _INT32, _INT32),
    "octavo_choose_greedy": (_POINTER, *_WEIGHT, *_INPUTS, _POINTER, _POINTER, _INT32),
    "octavo_lowbit_bytes": (_INT32, _INT64, _INT64),
    "octavo_lowbit_pack": (_INT32, _POINTER, _INT64, _INT64, _POINTER, _INT32),
    "octavo_weight_rows": (_INT32, _POINTER, _INT64, _INT64, _POINTER, _INT64, _POINTER, _INT32),
    "octavo_stop_recording": (),
    "octavo_free_program": (_POINTER,),
    "octavo_num_calls": (_POINTER,),
    "octavo_run_program": (_POINTER, _INT32, _INT64, *[_POINTER] * 6, _INT64, _INT32, _POINTER),
    "octavo_gated_silu": (
        _POINTER,
        *[_POINTER, _INT64] * 2,
        *[_INT64] * 2,
        _POINTER,
        _INT32,
    ),
}
_RETURN_INT64 = (  # 0 or a place, plus 1; or a number of bytes
    "octavo_paged_attention",
    "octavo_write_kv",
    "octavo_rotate",
    "octavo_lowbit_bytes",
    "octavo_lowbit_pack",
    "octavo_weight_rows",
    "octavo_num_calls",
    "octavo_run_program",
)


class NativeLibraryError(Exception):
    """The native library cannot be used; the message is one line with the reason and the remedy."""


@dataclass(frozen=True, slots=True)
class NativeLibrary:
    """The loaded library and the instruction set to run.

    Attributes:
        functions: the C functions, with their types set.
        isa: handle of the inner loops, first argument of most functions.
        isa_name: which that is, one of ISAS.
        scratch: where kernels put what they calculate.
    """

    functions: ctypes.CDLL
    isa: int
    isa_name: str
    scratch: Scratch = field(default_factory=Scratch)


def load_library(path: Path = LIBRARY_PATH, *, isa_name: str | None = None) -> NativeLibrary:
    """The library, running the given instruction set or the best that this processor has.

    Raises:
        NativeLibraryError: it is not built, was built from other sources, or cannot run here.
    """
    if not path.exists():
        raise NativeLibraryError(f"the native library is not built; to build it: {BUILD_COMMAND}")
    try:
        functions = ctypes.CDLL(str(path))
        functions.octavo_source_hash.restype = ctypes.c_char_p
        built_from = functions.octavo_source_hash().decode()
    except (OSError, AttributeError) as error:
        raise NativeLibraryError(
            f"{path.name} does not load ({error}); to rebuild it: {BUILD_COMMAND}"
        ) from None
    sources = hash_sources()
    if sources is not None and sources != built_from:
        raise NativeLibraryError(f"{path.name} was built from other sources; to rebuild it: {BUILD_COMMAND}")
    for name, arguments in _ARGUMENTS.items():
        function = getattr(functions, name)
        function.argtypes = arguments
        function.restype = ctypes.c_int64 if name in _RETURN_INT64 else None
    functions.octavo_start_recording.argtypes = []
    functions.octavo_start_recording.restype = ctypes.c_void_p
    functions.octavo_call_label.argtypes = [_POINTER, _INT64, _POINTER, _POINTER]
    functions.octavo_call_label.restype = ctypes.c_char_p
    functions.octavo_isa.argtypes = [ctypes.c_char_p]
    functions.octavo_isa.restype = ctypes.c_void_p
    for name in ISAS if isa_name is None else (isa_name,):
        isa = functions.octavo_isa(name.encode())
        if isa is not None:
            return NativeLibrary(functions, isa, name)
    raise NativeLibraryError(f"{path.name} has no kernels for this processor ({isa_name or 'any'})")
