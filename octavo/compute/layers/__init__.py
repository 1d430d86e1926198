"""The parts of a decoder layer: plain classes that hold weights and call the kernel table.

Each takes its tensors out of the weights it is built from, so that no weight is held twice. Layers
know shapes and kernels; they know no request, no schedule and no device.
"""
