"""Starts a program that does not outlive this process, however this one ends; imports nothing of ours.

Peers are held still by SIGSTOP while others are measured; after a kill -9 nobody would wake them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def tied(command: Sequence[str]) -> list[str]:
    """The command, killed by the kernel when the thread that starts it ends; on Linux, elsewhere as it is."""
    if not sys.platform.startswith("linux"):
        return list(command)
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def main() -> None:
    """Arguments: the parent's process id, then the command that takes this process's place."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == int(sys.argv[1]):  # else it ended before it could be watched
        os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
