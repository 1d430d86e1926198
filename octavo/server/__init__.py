"""The front process: HTTP in, tokens to the engine process, text back out.

Translates protocols. Never imports torch, and knows the engine only by its messages.
"""

from octavo.server.serve import run_server

__all__ = ["run_server"]
