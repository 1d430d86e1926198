"""Age and memory of processes, against psutil."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

from octavo.observability.process import own_peak_rss_bytes, peak_rss_bytes, seconds_since_process_start


def test_age_is_that_of_the_process():
    expected = time.time() - psutil.Process().create_time()
    assert seconds_since_process_start() == pytest.approx(expected, abs=1.0)


def test_memory_counts_children_and_remembers_the_peak():
    alone = peak_rss_bytes(os.getpid())
    assert alone >= psutil.Process().memory_info().rss
    code = "x = bytearray(b'1') * 50_000_000; del x; print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1) as child:
        child.stdout.readline()
        assert psutil.Process(child.pid).memory_info().rss < 40_000_000
        assert peak_rss_bytes(child.pid) > 50_000_000
        assert peak_rss_bytes(os.getpid()) > alone + 50_000_000
        assert own_peak_rss_bytes() < alone + 20_000_000
        child.stdin.close()
