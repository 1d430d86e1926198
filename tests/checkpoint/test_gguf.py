"""The GGUF header parser: right on real files, one clear line on every kind of damage."""

from __future__ import annotations

import struct
import time
from array import array
from pathlib import Path

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.checkpoint.ggml_type import GgmlType
from octavo.checkpoint.gguf import GgufFile, GgufStrings
from octavo.checkpoint.starter import find_starter
from octavo.errors import CheckpointError, OctavoError, UnsupportedModelError
from tests.checkpoint.raw_gguf import RawGguf, RawTensor, array_entry, number_entry, text, text_entry


def _write(path: Path, raw: RawGguf | bytes) -> Path:
    path.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    return path


def test_starter_agrees_with_the_reference_reader() -> None:
    path = find_starter()
    reference = gguf.GGUFReader(path)
    with GgufFile(path) as file:
        assert file.metadata["general.architecture"] == "llama"
        tokens = file.metadata["tokenizer.ggml.tokens"]
        assert isinstance(tokens, GgufStrings)
        field = reference.fields["tokenizer.ggml.tokens"]
        assert len(tokens) == len(field.data)
        for index in range(0, len(tokens), 97):  # the reference takes seconds for all of them
            assert tokens[index].encode() == bytes(field.parts[field.data[index]])
        kinds = file.metadata["tokenizer.ggml.token_type"]
        assert isinstance(kinds, array)
        assert (len(kinds), kinds[0], kinds[1000]) == (49152, 3, 1)
        assert set(file.metadata) == {key for key in reference.fields if not key.startswith("GGUF.")}
        for expected in reference.tensors:
            tensor = file.tensors[expected.name]
            assert tensor.shape == tuple(int(extent) for extent in reversed(expected.shape))
            assert tensor.type.name == expected.tensor_type.name
            assert (tensor.offset, tensor.num_bytes) == (expected.data_offset, expected.n_bytes)


def test_starter_parses_fast() -> None:
    durations = []
    for _ in range(3):
        started = time.perf_counter()
        GgufFile(find_starter()).close()
        durations.append(time.perf_counter() - started)
    assert min(durations) < 0.15


@pytest.mark.parametrize("ggml_type", list(GgmlType), ids=lambda ggml_type: ggml_type.name)
def test_type_sizes_agree_with_the_reference(ggml_type: GgmlType) -> None:
    reference = gguf.GGMLQuantizationType(ggml_type.type_id)
    assert reference.name == ggml_type.name
    assert gguf.GGML_QUANT_SIZES[reference] == (ggml_type.block_size, ggml_type.block_bytes)


def test_every_kind_of_metadata_value(tmp_path: Path) -> None:
    scalars = [(0, "B", 7), (1, "b", -7), (2, "H", 7), (3, "h", -7), (4, "I", 7), (5, "i", -7)]
    scalars += [(10, "Q", 1 << 40), (11, "q", -(1 << 40))]
    entries = [text(f"n{kind}") + struct.pack(f"<I{letter}", kind, value) for kind, letter, value in scalars]
    entries.append(text("f") + struct.pack("<If", 6, 0.5))
    entries.append(text("d") + struct.pack("<Id", 12, 0.1))
    entries.append(text("yes") + struct.pack("<I?", 7, True))
    entries.append(array_entry("flags", 7, 2, b"\x01\x00"))
    entries.append(array_entry("words", 8, 2, text("é") + text("")))
    with GgufFile(_write(tmp_path / "m.gguf", RawGguf(entries=entries))) as file:
        assert [file.metadata[f"n{kind}"] for kind, _, _ in scalars] == [value for *_, value in scalars]
        assert (file.metadata["f"], file.metadata["d"], file.metadata["yes"]) == (0.5, 0.1, True)
        assert file.metadata["flags"] == [True, False]
        words = file.metadata["words"]
        assert isinstance(words, GgufStrings)
        assert (len(words), words[0], list(words)) == (2, "é", ["é", ""])


def test_tensor_bytes_and_alignment(tmp_path: Path) -> None:
    data = bytes(range(64))
    tensors = [RawTensor("a", dims=(4,)), RawTensor("b", dims=(2, 2), offset=16)]
    raw = RawGguf(entries=[number_entry("general.alignment", 16)], tensors=tensors, data=data, alignment=16)
    with GgufFile(_write(tmp_path / "m.gguf", raw)) as file:
        assert bytes(file.tensor_bytes(file.tensors["b"], 4, 8)) == data[20:24]
        assert file.tensors["b"].shape == (2, 2)
        file.release(file.tensors["b"])
        assert bytes(file.tensor_bytes(file.tensors["a"], 0, 4)) == data[:4]


_HUGE = (1 << 64) - 1
_DAMAGED: dict[str, tuple[RawGguf | bytes, str]] = {
    "empty": (b"", "does not begin with 'GGUF'"),
    "wrong magic": (RawGguf(magic=b"GGML"), "does not begin with 'GGUF'"),
    "magic alone": (b"GGUF", "ends inside the header"),
    "too many tensors": (RawGguf(num_tensors=_HUGE), "claims"),
    "too many entries": (RawGguf(num_entries=_HUGE), "claims"),
    "one entry too many": (RawGguf(num_entries=1), "ends inside"),
    "entry of no type": (RawGguf(entries=[text("k") + struct.pack("<I", 99)]), "unknown type 99"),
    "endless text": (
        RawGguf(entries=[text("k") + struct.pack("<IQ", 8, _HUGE)]),
        "ends inside the metadata entry 'k'",
    ),
    "endless key": (RawGguf(entries=[struct.pack("<Q", _HUGE)]), "ends inside metadata entry 0"),
    "key of no length": (RawGguf(entries=[text_entry("", "v")]), "without a name"),
    "key twice": (RawGguf(entries=[text_entry("k", "v")] * 2), "'k' is there twice"),
    "text not UTF-8": (RawGguf(entries=[text_entry("k", b"\xff")]), "not UTF-8"),
    "endless array": (RawGguf(entries=[array_entry("k", 4, 1 << 23, b"")]), "ends inside"),
    "endless strings": (RawGguf(entries=[array_entry("k", 8, 1 << 23, b"")]), "ends inside"),
    "absurd array": (RawGguf(entries=[array_entry("k", 0, _HUGE, b"")]), "items"),
    "string too long": (
        RawGguf(entries=[array_entry("k", 8, 1, struct.pack("<Q", _HUGE))]),
        "ends inside",
    ),
    "nested array": (RawGguf(entries=[array_entry("k", 9, 1, b"")]), "array of arrays"),
    "alignment of three": (RawGguf(entries=[number_entry("general.alignment", 3)]), "power of two"),
    "alignment of zero": (RawGguf(entries=[number_entry("general.alignment", 0)]), "general.alignment"),
    "alignment of words": (
        RawGguf(entries=[text_entry("general.alignment", "x")]),
        "general.alignment",
    ),
    "no dims": (RawGguf(tensors=[RawTensor("a", dims=())]), "tensor 'a': has 0 dims"),
    "five dims": (RawGguf(tensors=[RawTensor("a", dims=(1,) * 5)]), "tensor 'a': has 5 dims"),
    "empty dim": (RawGguf(tensors=[RawTensor("a", dims=(4, 0))]), "tensor 'a': has an empty dim"),
    "shape overflow": (
        RawGguf(tensors=[RawTensor("a", dims=(1 << 62, 1 << 62))]),
        "tensor 'a': ends at byte",
    ),
    "tensor twice": (RawGguf(tensors=[RawTensor("a"), RawTensor("a")]), "tensor 'a': is in the table twice"),
    "odd offset": (RawGguf(tensors=[RawTensor("a", offset=1)]), "tensor 'a': its offset 1"),
    "out of bounds": (RawGguf(tensors=[RawTensor("a", offset=1 << 40)]), "tensor 'a': ends at byte"),
    "overlap": (RawGguf(tensors=[RawTensor("a"), RawTensor("b")]), "tensor 'b': overlaps tensor 'a'"),
    "format 77": (RawGguf(tensors=[RawTensor("a", type_id=77)]), "tensor 'a': unknown number format 77"),
    "part of a block": (RawGguf(tensors=[RawTensor("a", type_id=2)]), "tensor 'a': rows of 4 values"),
    "data cut short": (RawGguf(data=bytes(31)), "tensor 'a': ends at byte"),
}


@pytest.mark.parametrize("name", _DAMAGED)
def test_damage_is_one_line_with_file_and_reason(name: str, tmp_path: Path) -> None:
    raw, expected = _DAMAGED[name]
    path = _write(tmp_path / "broken.gguf", raw)
    with pytest.raises(CheckpointError) as caught:
        GgufFile(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert expected in message
    assert "\n" not in message


_UNSUPPORTED: dict[str, tuple[RawGguf, str]] = {
    "version 1": (RawGguf(version=struct.pack("<I", 1)), "GGUF version 1 is not read"),
    "big-endian": (RawGguf(version=struct.pack(">I", 3)), "big-endian"),
    "split": (
        RawGguf(entries=[text("split.count") + struct.pack("<IH", 2, 3)]),
        "one of 3 parts of a split GGUF",
    ),
    "IQ2_XS": (RawGguf(tensors=[RawTensor("a", type_id=17)]), "tensor 'a': format IQ2_XS is not read"),
}


@pytest.mark.parametrize("name", _UNSUPPORTED)
def test_unsupported_is_refused_by_name(name: str, tmp_path: Path) -> None:
    raw, expected = _UNSUPPORTED[name]
    with pytest.raises(UnsupportedModelError, match=expected):
        GgufFile(_write(tmp_path / "m.gguf", raw))


def test_strings_that_are_not_utf8_are_named_when_decoded(tmp_path: Path) -> None:
    raw = RawGguf(entries=[array_entry("words", 8, 2, text("a") + text(b"\xff"))])
    with GgufFile(_write(tmp_path / "m.gguf", raw)) as file:
        words = file.metadata["words"]
        assert isinstance(words, GgufStrings)
        with pytest.raises(CheckpointError, match="string 1 of the array 'words'"):
            words[0]


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(CheckpointError, match="cannot be read"):
            GgufFile(path)


def test_truncation_anywhere_is_refused(tmp_path: Path) -> None:
    entries = [text_entry("general.architecture", "llama"), array_entry("k", 8, 2, text("a") + text("b"))]
    whole = RawGguf(entries=entries, tensors=[RawTensor("a"), RawTensor("b", offset=32)], data=bytes(64))
    data = whole.encode()
    for length in range(len(data)):
        with pytest.raises(CheckpointError):
            GgufFile(_write(tmp_path / "cut.gguf", data[:length]))
    GgufFile(_write(tmp_path / "cut.gguf", data)).close()


def test_a_cut_starter_is_refused_in_no_time(tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    with find_starter().open("rb") as file:
        path.write_bytes(file.read(4 << 20))
    started = time.perf_counter()
    with pytest.raises(CheckpointError, match="may be cut short"):
        GgufFile(path)
    assert time.perf_counter() - started < 2


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_changed_bytes_raise_only_our_errors(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    entries = [
        text_entry("general.architecture", "llama"),
        number_entry("general.alignment", 32),
        array_entry("words", 8, 2, text("a") + text("b")),
        array_entry("numbers", 5, 2, bytes(8)),
    ]
    raw = RawGguf(entries=entries, tensors=[RawTensor("a"), RawTensor("b", offset=32)], data=bytes(64))
    changed = bytearray(raw.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(4, len(changed) - 65))] = data.draw(st.integers(0, 255))
    path = _write(tmp_path_factory.getbasetemp() / "fuzzed.gguf", bytes(changed))
    try:
        with GgufFile(path) as file:
            for value in file.metadata.values():
                if isinstance(value, GgufStrings):
                    list(value)
            for tensor in file.tensors.values():
                assert len(file.tensor_bytes(tensor, 0, tensor.num_bytes)) == tensor.num_bytes
    except OctavoError as error:
        assert "\n" not in str(error)
