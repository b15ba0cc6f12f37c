"""Data sets by place: files, published layouts, the Hub; pinned by their digest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from picollm.data.rows import load_rows, rows_of, split_names
from picollm.errors import DataError, InputError, UnavailableError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write(path: Path, *numbers: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"n": number}) + "\n" for number in numbers))
    return path


def numbers(rows) -> list[int]:
    return [row["n"] for row in rows]


def test_a_split_is_a_file_or_its_shards_there_or_below_data(tmp_path: Path) -> None:
    write(tmp_path / "a" / "train.jsonl", 1, 2)
    write(tmp_path / "a" / "test.jsonl", 3)
    write(tmp_path / "b" / "data" / "train-00001-of-00002.jsonl", 3, 4)
    write(tmp_path / "b" / "data" / "train-00000-of-00002.jsonl", 1, 2)
    write(tmp_path / "b" / "data" / "test-00000-of-00001.jsonl", 5)
    assert numbers(load_rows(tmp_path / "a", split="train")) == [1, 2]
    assert numbers(load_rows(str(tmp_path / "b"), split="train")) == [1, 2, 3, 4]
    assert numbers(load_rows(tmp_path / "b", split="test")) == [5]
    assert numbers(load_rows(tmp_path / "a")) == [3, 1, 2]  # without a split every file, by name
    assert split_names(tmp_path / "a") == split_names(str(tmp_path / "b")) == {"train", "test"}
    assert split_names(tmp_path / "a" / "train.jsonl") == set()
    assert numbers(load_rows([tmp_path / "a" / "train.jsonl", tmp_path / "a" / "test.jsonl"])) == [1, 2, 3]


def test_the_digest_is_the_sha256_of_the_file(tmp_path: Path) -> None:
    one, two = write(tmp_path / "train-0.jsonl", 1), write(tmp_path / "train-1.jsonl", 2)
    single, both = load_rows(one), load_rows(tmp_path, split="train")
    assert single.digest == hashlib.sha256(one.read_bytes()).hexdigest()
    assert both.files == {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in (one, two)}
    before = both.digest
    write(two, 3)
    assert load_rows(tmp_path, split="train").digest != before


def test_rows_are_a_sequence_whose_selections_remember_where_rows_are(tmp_path: Path) -> None:
    rows = load_rows(write(tmp_path / "a.jsonl", *range(10)))
    assert (len(rows), rows[3], rows[-1]) == (10, {"n": 3}, {"n": 9})
    assert numbers(rows[2:8:2]) == [2, 4, 6]
    assert numbers(rows[2:8][1:3]) == [3, 4]
    assert numbers(rows.select([7, 7, 0])) == [7, 7, 0]
    assert numbers(rows[2:8].select([5, 0]).select([1])) == [2]
    assert rows[2:8].where(1).endswith("a.jsonl, row 3")
    assert rows[:2].digest == rows.digest
    with pytest.raises(IndexError):
        rows[10]
    assert numbers(load_rows(tmp_path / "a.jsonl", limit=3)) == [0, 1, 2]


def test_a_wrong_field_names_file_row_and_what_is_there(tmp_path: Path) -> None:
    rows = load_rows(write(tmp_path / "a.jsonl", *range(4)))[2:]
    assert rows.field(1, "n", int) == 3
    with pytest.raises(DataError, match=r"a\.jsonl, row 3 has no 'm'; its keys are 'n'"):
        rows.field(1, "m", int)
    with pytest.raises(DataError, match=r"a\.jsonl, row 2: 'n' is 2; expected str"):
        rows.field(0, "n", str)
    with pytest.raises(DataError, match="expected int"):
        rows_of([{"n": True}], "made").field(0, "n", int)


def test_generated_rows_are_pinned_by_their_content() -> None:
    rows = rows_of([{"n": 1, "a": "ä"}], "made")
    assert rows.digest == rows_of([{"a": "ä", "n": 1}], "other").digest
    assert rows.digest != rows_of([{"a": "ä", "n": 2}], "made").digest


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", 1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"has no validation files; it has train\."):
        load_rows(tmp_path, split="validation")
    with pytest.raises(DataError, match="it has no data files"):
        load_rows(tmp_path / "empty", split="train")
    with pytest.raises(DataError, match=r"cannot read .*nothing\.jsonl: No such file"):
        load_rows(tmp_path / "nothing.jsonl")
    with pytest.raises(InputError, match="no data files were given"):
        load_rows([])
    with pytest.raises(InputError, match="limit is 0"):
        load_rows(tmp_path, limit=0)


@pytest.mark.parametrize(
    "location",
    ["hub:org/name", "hub:org/name@main", f"hub:name@{COMMIT}", f"hub:a/b/c/d@{COMMIT}", f"hub:@{COMMIT}"],
)
def test_a_hub_data_set_has_to_be_pinned(location: str) -> None:
    with pytest.raises(InputError, match="is no pinned data set"):
        load_rows(location)


def test_a_filter_keeps_the_rows_with_the_values_and_every_step_is_counted(tmp_path: Path) -> None:
    made = [{"n": n, "source": "abc"[n % 3]} for n in range(30)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    table = pytest.importorskip("pyarrow").Table.from_pylist(made)
    pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "a.parquet", row_group_size=7)
    for rows in (load_rows(tmp_path / "a.jsonl"), load_rows(tmp_path / "a.parquet")):
        kept = rows.filtered({"source": ["a", "c"]}).limited(5)
        assert numbers(kept) == [0, 2, 3, 5, 6]
        assert kept.steps == {"all": 30, "filter": 20, "limit": 5}
        assert kept.where(1).endswith("row 2") and kept.digest == rows.digest
        assert numbers(rows[10:].filtered({"source": "b", "n": [10, 11, 13]})) == [10, 13]
        assert rows.filtered({}) is rows
        with pytest.raises(DataError, match=r"no row has source = 'd'; it has 'a', 'b', 'c'\."):
            rows.filtered({"source": "d"})
        with pytest.raises(DataError, match=r"row 0 has no 'sauce'; its keys are 'n', 'source'"):
            rows.filtered({"sauce": "d"})


def test_an_unreachable_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def load_dataset(*_: object, **__: object) -> object:
        raise ConnectionError("Could not reach the host\nand a long traceback of details")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UnavailableError) as caught:
        load_rows(f"hub:org/name@{COMMIT}")
    assert f"cannot load hub:org/name@{COMMIT} (split train): Could not reach the host - " in str(
        caught.value
    )
    assert "\n" not in str(caught.value)


def test_published_layouts_are_read_as_they_are(shared_data: Path) -> None:
    rows = load_rows(shared_data / "gsm8k" / "main", split="test")
    assert len(rows) == 660 and set(rows[0]) == {"question", "answer"}
    pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pq.read_table(shared_data / "chat" / "mix" / "test.parquet").to_pylist()
    assert list(load_rows(shared_data / "chat" / "mix", split="test")) == table
