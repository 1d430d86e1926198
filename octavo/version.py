"""The version, at the bottom of the import layers so that every part may name it."""

__version__ = "0.1.0"
