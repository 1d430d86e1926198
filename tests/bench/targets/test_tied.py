"""Programs that end with the benchmark that started them, even where both ends are violent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from octavo.bench.targets.tied import tied

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's part is Linux's")

# Starts a tied child, holds it still, says its process id and waits to be killed.
_PARENT = """
import os, signal, subprocess, sys, time
from octavo.bench.targets.tied import tied
child = subprocess.Popen(tied([sys.executable, "-c", "print('up', flush=True); import time; time.sleep(60)"]),
                         stdout=subprocess.PIPE)
child.stdout.readline()
os.kill(child.pid, signal.SIGSTOP)
print(child.pid, flush=True)
time.sleep(60)
"""


def _is_there(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii")
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def test_a_child_that_is_held_still_dies_with_a_parent_that_is_killed():
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert _is_there(child)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait(timeout=10)
    deadline = time.monotonic() + 10
    while _is_there(child):
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.01)


def test_the_command_takes_over_with_its_arguments_and_its_exit_code():
    command = tied([sys.executable, "-c", "import sys; print(sys.argv[1:]); sys.exit(7)", "a b", "--c"])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (7, "['a b', '--c']")
