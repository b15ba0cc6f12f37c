"""One file, read in every form it may come in; and every way a file can be broken, named precisely."""

from __future__ import annotations

import gzip
import json
import pickle
import tempfile
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from picollm.data import readers
from picollm.data.readers import Lines, Text, open_file
from picollm.errors import DataError

ROWS = [{"question": f"What is {n} + 1?", "answer": str(n + 1), "tags": ["ä", "b"]} for n in range(700)]


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    kinds = {
        ".parquet": lambda: pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=64),
        ".jsonl": lambda: path.write_bytes(lines),
        ".jsonl.gz": lambda: path.write_bytes(gzip.compress(lines)),
        ".json": lambda: path.write_text(json.dumps(rows, indent=1)),
        ".json.gz": lambda: path.write_bytes(gzip.compress(json.dumps(rows).encode())),
    }
    kinds["." + path.name.split(".", 1)[1]]()
    return path


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.jsonl.gz", "a.json", "a.json.gz"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    source = open_file(write(tmp_path / name, ROWS))
    assert len(source) == len(ROWS)
    assert [source[index] for index in (0, 63, 64, 699)] == [ROWS[index] for index in (0, 63, 64, 699)]
    assert [source[index] for index in range(len(source))] == ROWS


@pytest.mark.parametrize(
    "data",
    [
        b'\xef\xbb\xbf{"a": 1}\n{"a": 2}\n',  # byte order mark
        b'{"a": 1}\r\n{"a": 2}\r\n',
        b'{"a": 1}\n\n{"a": 2}',  # a blank line, no newline at the end
        b'\n \r\n{"a": 1}\n{"a": 2}\n\n\n',
    ],
)
def test_marks_line_ends_and_blank_lines_are_no_rows(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(data)
    source = open_file(path)
    assert [source[index] for index in range(len(source))] == [{"a": 1}, {"a": 2}]


def test_text_has_one_row_per_line(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(b"apple\r\npear\r\n")
    source = open_file(path)
    assert [source[0], source[1]] == [{"text": "apple"}, {"text": "pear"}]


BROKEN = {
    "empty.jsonl": (b"", "is empty (0 bytes)"),
    "blank.jsonl": (b"\n\n", "has no rows"),
    "cut.jsonl.gz": (gzip.compress(b'{"a": 1}\n' * 5000)[:-20], "ends in the middle of its gzip stream"),
    "bits.jsonl.gz": (b"\x1f\x8b\x08" + b"\0" * 40, "is damaged or no gzip file"),
    "plain.jsonl.gz": (b'{"a": 1}\n', "is damaged or no gzip file"),
    "wide.jsonl": ('{"a": 1}\n'.encode("utf-16"), "is UTF-16; expected UTF-8"),
    "fake.parquet": (b'{"a": 1}\n', "is damaged or no parquet file"),
    "list.json": (b'[{"a": 1}, 2]', "row 1: expected a JSON object, not int"),
    "cut.json": (b'[{"a": 1}, {"a"', "is no valid JSON list"),
    "rows.csv": (b"a\n1\n", "is of no known kind"),
    "none.json": (b"[]", "has no rows"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_when_opened(tmp_path: Path, name: str) -> None:
    data, message = BROKEN[name]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        open_file(path)
    assert message in str(caught.value) and str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_parquet_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"a\.parquet is damaged or no parquet file"):
        open_file(path)


BROKEN_ROWS = {
    b'{"a": 1,}': "no valid JSON at column 9",
    b'{"a": ': "no valid JSON at column 7",
    b"[1]": "expected a JSON object, not list",
    b'{"a": "\xff"}': "byte 7 of it is not UTF-8",
    b'{"a": 1, "a": 2}': "the key 'a' occurs twice",
    b'{"a": ' + b"[" * 100_000: "the JSON is nested too deeply",
}


@pytest.mark.parametrize("row", BROKEN_ROWS, ids=range(len(BROKEN_ROWS)))
def test_a_broken_row_is_named_with_file_row_and_line(tmp_path: Path, row: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n\n' + row + b'\n{"a": 3}\n')
    source = open_file(path)
    assert (source[0], source[2]) == ({"a": 1}, {"a": 3})
    with pytest.raises(DataError) as caught:
        source[1]
    assert str(caught.value).startswith(f"{path}, row 1: line 3, {BROKEN_ROWS[row]}")


@given(st.binary(max_size=200), st.integers(1, 60))
def test_lines_cuts_any_bytes_as_python_does(data: bytes, block_bytes: int) -> None:
    data = data.replace(b"\xff", b"\n").replace(b"\xef", b"\n")
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "_BLOCK_BYTES", block_bytes)
        path = Path(folder) / "any.txt"
        path.write_bytes(data)
        cut = Lines(Text(path), lambda text: {"text": text})
        expected = [line for line in data.split(b"\n") if line.strip()]
        assert len(cut) == len(expected)
        for index, line in enumerate(expected):
            try:
                text = line.decode("utf-8").rstrip("\r")
            except UnicodeDecodeError:
                with pytest.raises(DataError):
                    cut[index]
            else:
                assert cut[index] == {"text": text}


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.jsonl.gz", "a.json"])
def test_rows_are_the_same_in_any_order_and_in_another_process(tmp_path: Path, name: str) -> None:
    source = open_file(write(tmp_path / name, ROWS))
    sent = pickle.loads(pickle.dumps(source))
    order = [3, 2, 699, 0, 64, 65, 66, 63, 500, 501, 1]
    assert [source[index] for index in order] == [sent[index] for index in order] == [ROWS[i] for i in order]


def test_a_parquet_file_damaged_in_the_middle_is_named_with_its_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", ROWS)
    data = bytearray(path.read_bytes())
    data[4:2000] = b"\xff" * 1996
    path.write_bytes(data)
    source = open_file(path)
    with pytest.raises(DataError, match=r"a\.parquet, row 0 is damaged or no parquet file"):
        source[0]


def test_a_large_file_costs_its_index_and_not_its_size(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("w") as file:
        for number in range(4000):
            file.write(json.dumps({"n": number, "text": "x" * 8000}) + "\n")
    tracemalloc.start()
    source = open_file(path)
    total = sum(source[index]["n"] for index in range(len(source)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 3999 * 2000 and path.stat().st_size > 32e6 and peak < 12e6


def test_a_line_beyond_all_measure_is_one_row_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "MAX_ROW_BYTES", 1 << 20)
    path, size = tmp_path / "a.jsonl", 1 << 24
    with path.open("wb") as file:
        file.write(b'{"a": 1}\n{"a": "')
        file.seek(size, 1)  # a hole, which takes no room on the disk
        file.write(b'"}\n{"a": 3}\n')
    tracemalloc.start()
    source = open_file(path)
    assert (len(source), source[0], source[2]) == (3, {"a": 1}, {"a": 3})
    said = f"row 1: line 2, {size + 9:,} bytes; a row holds at most 1,048,576"
    with pytest.raises(DataError, match=said):
        source[1]
    assert tracemalloc.get_traced_memory()[1] < 3e6
    tracemalloc.stop()


def test_rows_that_are_long_lists_are_rows(tmp_path: Path) -> None:
    path, talk = tmp_path / "a.jsonl", [{"role": "user", "content": "x" * 100_000}]
    path.write_text(f"{json.dumps(talk)}\n{json.dumps(talk)}\n")
    source = open_file(path)
    assert len(source) == 2 and source[1] == {"messages": talk}
