"""Octavo serves large language models."""
