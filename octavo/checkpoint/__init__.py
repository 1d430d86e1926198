"""Finding checkpoints and reading their headers: which files, what they say, where their bytes lie.

Knows file formats, not models; imports no tensor library, so the front process may use it.
"""
