"""What the compiler made of the hot loops: no spilled registers, no instruction that a unit may not use."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from octavo.compute.kernels.cpu.build import COMPILERS, BuildError, compile_objects, find_compiler

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or shutil.which("objdump") is None, reason="needs x86-64 and objdump"
)

# Vector accesses to the stack that an innermost loop may have. The low-bit ones do a whole block, some with
# their running sums on the stack (at most 14 with the compilers tried; plain intrinsics had 157).
MAX_STACK_ACCESSES = {"vpmadd": 16, "vfmadd": 4}
MIN_HOT_MULTIPLIES = 8
Instructions = list[tuple[int, str]]  # address, text without symbols


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("objects")
    try:
        compile_objects(folder, find_compiler(COMPILERS), platform.machine())
    except BuildError as error:
        pytest.skip(str(error))
    return folder


@cache
def _functions(path: Path) -> dict[str, Instructions]:
    command = ["objdump", "-d", "--no-show-raw-insn", str(path)]
    functions: dict[str, Instructions] = {}
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        if match := re.match(r"[0-9a-f]+ <(.+)>:$", line):
            body = functions.setdefault(match[1], [])
        elif match := re.match(r"\s*([0-9a-f]+):\t(.+)$", line):
            body.append((int(match[1], 16), re.sub(r"<.*|#.*", "", match[2])))
    return functions


def _instructions(path: Path) -> list[str]:
    return [text for body in _functions(path).values() for _, text in body]


def _innermost_loops(body: Instructions) -> Iterator[list[str]]:
    """What lies between a backward jump and its target, where no other such pair lies inside."""
    pairs = [
        (int(match[1], 16), address)
        for address, text in body
        if (match := re.match(r"j\w+\s+([0-9a-f]+)", text)) and int(match[1], 16) < address
    ]
    for first, last in pairs:
        if not any(pair != (first, last) and first <= pair[0] and pair[1] <= last for pair in pairs):
            yield [text for address, text in body if first <= address <= last]


def test_the_hot_loops_keep_their_vectors_in_registers(objects: Path) -> None:
    num_hot = dict.fromkeys(MAX_STACK_ACCESSES, 0)
    for name, body in _functions(objects / "isa_avx2.o").items():
        for loop in _innermost_loops(body):
            counts = {kind: sum(text.startswith(kind) for text in loop) for kind in MAX_STACK_ACCESSES}
            if sum(counts.values()) < MIN_HOT_MULTIPLIES:
                continue
            kind = "vpmadd" if counts["vpmadd"] else "vfmadd"
            num_hot[kind] += 1
            stacked = [text for text in loop if "%ymm" in text and re.search(r"\(%r[sb]p", text)]
            assert len(stacked) <= MAX_STACK_ACCESSES[kind], f"{name}: {len(stacked)}\n" + "\n".join(stacked)
    assert num_hot["vpmadd"] >= 10 and num_hot["vfmadd"] >= 15, f"the loops were not found: {num_hot}"


@pytest.mark.parametrize(
    ("unit", "forbidden"),
    [
        ("isa_generic", r"%[yz]mm|%k[1-7]|^v"),
        ("isa_avx2", r"%zmm|%k[1-7]|%[xy]mm(1[6-9]|2\d|3[01])"),
        ("isa_avx512", r"^vp(dp|opcnt)|^vdpbf16|^vp[a-z]*(52|vbmi)"),
    ],
)
def test_a_unit_uses_its_own_instructions_only(objects: Path, unit: str, forbidden: str) -> None:
    instructions = _instructions(objects / f"{unit}.o")
    assert len(instructions) > 1000
    assert not [text for text in instructions if re.search(forbidden, text)][:10]


def test_the_wide_units_use_what_they_are_for(objects: Path) -> None:
    for unit, mnemonic in (("isa_avx512vnni", "vpdpbusd"), ("isa_avx512", "vpmaddubsw")):
        texts = _instructions(objects / f"{unit}.o")
        assert any(text.startswith(mnemonic) and "%zmm" in text for text in texts)


@pytest.mark.parametrize(
    "stem", ["api", "api_isa", "api_linear", "api_pack", "lowbit_pack", "product", "thread_pool"]
)
def test_code_that_always_runs_needs_no_instruction_set(objects: Path, stem: str) -> None:
    assert not [text for text in _instructions(objects / f"{stem}.o") if re.search(r"%[yz]mm|^v", text)]


def test_units_share_no_code(objects: Path) -> None:
    """A function that two units define could be linked from the one that the processor cannot run."""
    for path in sorted(objects.glob("isa_*.o")):
        listed = subprocess.run(["nm", str(path)], capture_output=True, text=True, check=True).stdout
        assert not [line for line in listed.splitlines() if re.search(r" [WVu] ", line)], path.name
