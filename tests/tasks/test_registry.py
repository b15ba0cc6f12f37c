"""Tasks by name: where rows come from, and what is said when they do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from picollm.errors import DataError, InputError
from picollm.tasks.registry import TASKS, load_task


def write(path: Path, num: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"question": f"{path.stem} {n}?", "answer": f"#### {n}"} for n in range(num)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def questions(task) -> list[str]:
    return [row["question"] for row in task.rows]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gsm8", "did you mean 'gsm8k'"),
        ("spelling-bee", "did you mean 'spelling_bee'"),
        ("zzz", "expected one of"),
    ],
)
def test_an_unknown_name_gets_a_hint(name: str, message: str) -> None:
    with pytest.raises(InputError, match=f"no task is called '{name}'; {message}"):
        load_task(name, "test")


def test_split_and_limit_are_checked_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no split 'dev'; expected one of train, validation, test"):
        load_task("gsm8k", "dev")
    with pytest.raises(InputError, match="limit is 0"):
        load_task("gsm8k", "test", limit=0)


def test_without_data_the_package_makes_its_own_rows() -> None:
    assert load_task("gsm8k", "test", limit=5, seed=3).rows.name == "primer/gsm8k/test (seed 3)"
    digests = {load_task("gsm8k", "test", seed=seed).rows.digest for seed in (3, 3, 4)}
    assert len(digests) == 2
    with pytest.raises(InputError, match="task 'arc_easy' needs data: pass --data-root"):
        load_task("arc_easy", "test")


def test_a_data_root_holds_published_layouts(tmp_path: Path) -> None:
    write(tmp_path / "gsm8k" / "main" / "train.jsonl", 120)
    write(tmp_path / "gsm8k" / "main" / "test.jsonl", 7)
    assert len(load_task("gsm8k", "test", data_root=tmp_path)) == 7
    with pytest.raises(
        DataError, match=r"has no rows for task 'mmlu'; looked for mmlu/all\. Put the set there"
    ):
        load_task("mmlu", "test", data_root=tmp_path)
    with pytest.raises(DataError, match="is no directory"):
        load_task("mmlu", "test", data_root=tmp_path / "nothing")
    assert load_task("facts", "test", data_root=tmp_path).rows.name.startswith("primer/facts")
    assert load_task("spelling", "test", data_root=tmp_path).rows.name.startswith("primer/words")
    with pytest.raises(InputError, match="'jsonl' needs data"):
        load_task("jsonl", "test", data_root=tmp_path)


def test_a_set_without_validation_rows_gives_up_every_fiftieth_training_row(tmp_path: Path) -> None:
    path = write(tmp_path / "gsm8k" / "main" / "train.jsonl", 120)
    train, validation = (load_task("gsm8k", split, data_root=tmp_path) for split in ("train", "validation"))
    assert questions(validation) == ["train 49?", "train 99?"]
    assert len(train) == 118 and not set(questions(train)) & set(questions(validation))
    own, own_validation = (load_task("gsm8k", split, location=path) for split in ("train", "validation"))
    assert questions(own) == questions(train) and questions(own_validation) == questions(validation)
    write(tmp_path / "gsm8k" / "main" / "validation.jsonl", 3)
    assert len(load_task("gsm8k", "train", data_root=tmp_path)) == 120
    assert questions(load_task("gsm8k", "validation", data_root=tmp_path))[0] == "validation 0?"


def test_a_row_held_out_of_one_source_is_held_out_of_all(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    talk = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    rows = [{"messages": [*talk, {**talk[0], "content": str(n)}, talk[1]], "kind": n % 3} for n in range(900)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def numbers(split: str, **options: object) -> set[str]:
        task = load_task("jsonl", split, location=path, **options)  # type: ignore[arg-type]
        return {task[index].messages[2].text for index in range(len(task))}

    everything, some = numbers("train"), numbers("validation", filter={"kind": [1]})
    assert some and not some & everything
    assert numbers("train", filter={"kind": [1]}) | some == {str(n) for n in range(900) if n % 3 == 1}
    with pytest.raises(DataError, match="no row has kind"):
        numbers("train", filter={"kind": 7})
    assert numbers("validation", filter={"kind": 7}) == set()


def test_a_location_is_looked_up_below_the_data_root(tmp_path: Path) -> None:
    path = write(tmp_path / "mine" / "test.jsonl", 4)
    for location, root in (
        ("mine", tmp_path),
        ("mine/test.jsonl", tmp_path),
        (path, None),
        (str(path.parent), None),
    ):
        assert len(load_task("gsm8k", "test", location=location, data_root=root, limit=3)) == 3
    with pytest.raises(DataError, match="cannot read nowhere"):
        load_task("gsm8k", "test", location="nowhere", data_root=tmp_path)


def test_a_word_list_with_one_word_is_too_short(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("apple\n")
    with pytest.raises(DataError, match=r"words\.txt has . words of 3 to 10 letters .* expected at least 10"):
        load_task("spelling", "test", location=path)


def test_every_name_is_spelled_like_an_option() -> None:
    assert all(name.isidentifier() and name == name.lower() for name in TASKS)


def test_a_hub_set_without_validation_rows_shares_its_training_rows_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {
        "train": [{"question": str(n), "answer": "#### 1"} for n in range(100)],
        "test": [{"question": "t"}],
    }
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *_, **__: list(rows))
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *_, split, **__: datasets.Dataset.from_list(rows[split])
    )
    commit = "0123456789abcdef" * 2 + "01234567"
    hub = f"hub:openai/gsm8k/main@{commit}"
    train, validation, test = (
        load_task("gsm8k", split, location=hub) for split in ("train", "validation", "test")
    )
    assert questions(validation) == ["49", "99"] and len(train) == 98 and questions(test) == ["t"]
    assert train.rows.digest == commit
