"""Pretraining text: the primer alone, or folders whose last file is held out."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from picollm.data import primer
from picollm.data.documents import open_corpus
from picollm.errors import DataError, InputError


def folder(root: Path, name: str, files: dict[str, list[str]]) -> None:
    (root / name).mkdir()
    for file, texts in files.items():
        (root / name / file).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def test_the_primer_is_its_generator_and_its_held_out_text_is_another_stream() -> None:
    corpus = open_corpus(["primer"], data_root=None, seed=3, num_validation=20)
    drawn = list(itertools.islice(corpus.training, 2000))
    assert drawn == list(itertools.islice(primer.documents(3), 2000))
    assert len(corpus.validation) == 20 and corpus.validation != drawn[:20]
    assert corpus.provenance[0]["sha256"] == primer.digest(3)


def test_every_document_comes_once_an_epoch_and_the_last_file_never(tmp_path: Path) -> None:
    folder(tmp_path, "a", {"0.jsonl": ["a0", "a1"], "1.jsonl": ["a2"], "2.jsonl": ["held a"]})
    folder(tmp_path, "b", {"0.jsonl": ["b0", "b1"], "1.jsonl": ["held b"]})
    corpus = open_corpus(["a", "b"], data_root=tmp_path, seed=0, num_validation=10)
    epochs = [list(itertools.islice(corpus.training, 5)) for _ in range(3)]
    assert all(sorted(epoch) == ["a0", "a1", "a2", "b0", "b1"] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert corpus.validation == ["held a", "held b"]
    again = open_corpus(["a", "b"], data_root=tmp_path, seed=0, num_validation=10)
    assert list(itertools.islice(again.training, 5)) == epochs[0]


@pytest.mark.parametrize(
    ("sources", "error", "said"),
    [
        ([], InputError, "sources is empty"),
        (["primer", "a"], InputError, "mixes"),
        (["nowhere"], DataError, "0 data files"),
        (["one"], DataError, "1 data files"),
    ],
)
def test_bad_sources_are_named(tmp_path: Path, sources: list[str], error: type[Exception], said: str) -> None:
    folder(tmp_path, "one", {"0.jsonl": ["text"]})
    with pytest.raises(error, match=said):
        open_corpus(sources, data_root=tmp_path, seed=0, num_validation=1)


def test_a_row_without_text_is_named(tmp_path: Path) -> None:
    folder(tmp_path, "a", {"0.jsonl": ["fine"], "1.jsonl": ["held"]})
    (tmp_path / "a" / "0.jsonl").write_text('{"text": "fine"}\n{"text": 7}\n')
    corpus = open_corpus(["a"], data_root=tmp_path, seed=0, num_validation=1)
    with pytest.raises(DataError, match="a, row 1: 'text' is 7"):
        list(itertools.islice(corpus.training, 2))


def test_real_text_is_read(shared_data: Path) -> None:
    corpus = open_corpus(["pretrain/fairytales"], data_root=shared_data, seed=0, num_validation=5)
    assert corpus.provenance[0]["documents"] == 356
    assert len(corpus.validation) == 5 and all(next(corpus.training) for _ in range(10))
