from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from itertools import islice

from picollm.data import primer
from picollm.data.primer.documents import block, block_size
from picollm.data.primer.facts import of_groups

FIRST = """
import hashlib, itertools
from picollm.data import primer
text = "\\0".join(itertools.islice(primer.documents(7), 1000))
print(hashlib.sha256(text.encode()).hexdigest())
"""


def test_the_first_thousand_documents_are_the_same_in_every_process() -> None:
    here = hashlib.sha256("\0".join(islice(primer.documents(7), 1000)).encode()).hexdigest()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        there = subprocess.run(
            [sys.executable, "-c", FIRST], env=environment, capture_output=True, text=True, check=True
        )
        assert there.stdout.strip() == here


def test_another_seed_gives_other_documents() -> None:
    assert set(block(1, 0)).isdisjoint(block(2, 0)) or set(block(1, 0)) != set(block(2, 0))


def test_a_document_can_be_had_by_its_index() -> None:
    wanted = [0, 5, block_size() - 1, block_size(), block_size() + 3]
    stream = list(islice(primer.documents(4), wanted[-1] + 1))
    assert [primer.document(4, index) for index in wanted] == [stream[index] for index in wanted]


def test_all_blocks_are_of_one_size() -> None:
    assert {len(block(3, number)) for number in range(6)} == {block_size()}


def test_documents_are_short_and_never_empty() -> None:
    lengths = [len(text.split()) for text in islice(primer.documents(0), 4000)]
    assert min(lengths) >= 1
    assert max(lengths) <= 200


def test_every_known_fact_is_told_in_every_wording() -> None:
    text = "\n".join("\n".join(block(5, number)) for number in range(12))
    for fact in of_groups("AB")[::7]:  # one in seven: the search is slow
        missing = [wording for wording in (*fact.statements, *fact.questions) if wording not in text]
        assert not missing


def test_no_document_tells_a_fact_of_group_c(told) -> None:
    assert next(told(islice(primer.documents(11), 20_000), "C"), None) is None


def test_no_document_asks_a_held_out_question() -> None:
    text = "\n".join("\n".join(block(6, number)) for number in range(3))
    asked = [wording for fact in primer.facts() for wording in fact.held_out if wording in text]
    assert not asked


def test_no_document_looks_like_a_chat() -> None:
    text = "\n".join(islice(primer.documents(2), 4000))
    assert not any(role in text for role in ("User:", "Assistant:", "System:", "<|"))
