"""Seeded workloads, and what is measured while they run. Makes no tensors of its own."""
