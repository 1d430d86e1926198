"""Native kernels for float32 tensors on the CPU: C++ behind a C interface, loaded with ctypes.

Optional: without the built library the table takes the reference. Python files here check arguments
and pass pointers; the loops are in src/.
"""
