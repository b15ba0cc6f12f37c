"""Documents about names and makers: right, and never about the assistant."""

from __future__ import annotations

import itertools
import re

from picollm.data import identity
from picollm.data.primer import people
from picollm.data.primer.wordings import normalized

DOCUMENTS = list(itertools.islice(people.documents(4), 3000))


def test_every_answer_about_a_work_is_its_maker_or_its_name() -> None:
    works = [document for document in DOCUMENTS if re.match(r"The [\w ]+ is called \w+\. ", document)]
    assert len(works) > 1000
    for document in works:
        called, person, _ = re.match(  # type: ignore[union-attr]
            r"The [\w ]+ is called (\w+)\. ([A-Z]\w+(?: [A-Z]\w+)*) (\w+)", document
        ).groups()
        for line in (line for line in document.splitlines()[1:] if not line.endswith("?")):
            assert person in line or f"It is called {called}." in line, document


def test_no_held_out_question_and_no_identity_stands_in_them() -> None:
    text = normalized("\n".join(DOCUMENTS))
    asked = {normalized(item.messages[-1]["content"]) for item in identity.test_items()}
    assert not [question for question in asked if f" {question} " in f" {text} "]
    assert "picollm" not in text and "montek" not in text


def test_documents_are_a_function_of_the_seed() -> None:
    assert list(itertools.islice(people.documents(4), 50)) == DOCUMENTS[:50]
    assert list(itertools.islice(people.documents(5), 50)) != DOCUMENTS[:50]
