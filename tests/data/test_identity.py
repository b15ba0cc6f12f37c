"""The identity: built byte for byte, pinned, free of other names, tested in words that training never had."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from picollm.chat.conversation import Conversation
from picollm.data import identity
from picollm.data.identity import IdentityItem
from picollm.data.primer.wordings import normalized, row
from picollm.errors import DataError, InputError, UnavailableError


@pytest.fixture(scope="module")
def built() -> list[dict[str, list[dict[str, str]]]]:
    return identity.build()


@pytest.fixture(scope="module")
def items() -> list[IdentityItem]:
    return identity.test_items()


def test_the_package_holds_what_the_templates_build(built: list, tmp_path: Path) -> None:
    pinned = identity.write(built, tmp_path / identity.CONVERSATIONS.name)
    assert (tmp_path / identity.CONVERSATIONS.name).read_bytes() == identity.CONVERSATIONS.read_bytes()
    assert identity.verify() == pinned
    assert identity.load() == built


def test_an_ask_stands_for_all_its_readings() -> None:
    assert identity._readings("Who (made|built) (you|it)?") == [
        "Who made you?",
        "Who made it?",
        "Who built you?",
        "Who built it?",
    ]
    assert identity._readings("Who (really) made you?") == ["Who (really) made you?"]
    assert len(identity._readings("(a|b|c|d|e) (a|b|c|d|e)")) == 16


def test_enough_and_different(built: list) -> None:
    assert len({json.dumps(each) for each in built}) == len(built) >= 1200
    assert sum(len(each["messages"]) >= 4 for each in built) >= 300
    for each in built:
        assert Conversation.from_dict(each).messages[-1].role == "assistant"


def test_nothing_foreign_and_nothing_personal(built: list) -> None:
    assert identity.scan(built) == []


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        ("I am ChatGPT.", "names ChatGPT"),
        ("I am picoLLM, made by OpenAI.", "claims the maker OpenAI"),
        ("My name is Bernd, made by Montek Singh Kundan.", "claims the name Bernd"),
        ("I am picoLLM. Write to pico@example.org.", "an e-mail address"),
        ("I am picoLLM. Call 0171 555 1234.", "a long number"),
        ("I am picoLLM. See https://example.org.", "a web address"),
        ("I do not know.", "no reply names picoLLM"),
    ],
)
def test_scan_finds(reply: str, problem: str) -> None:
    found = identity.scan([row("Who are you?", "I am picoLLM."), row("Who are you?", reply)])
    assert any(problem in line for line in found), found
    assert all(line.startswith("row 2: ") for line in found)


def test_held_out_questions_are_in_no_training_row(built: list, items: list[IdentityItem]) -> None:
    asked = {normalized(m["content"]) for each in built for m in each["messages"] if m["role"] == "user"}
    for item in items:
        assert normalized(item.messages[-1]["content"]) not in asked
        assert item.messages[-1]["role"] == "user"
        Conversation.from_dict({"messages": list(item.messages)})
    assert len({str(item.messages) for item in items}) == len(items) >= 100
    assert sum(item.kind == "pressure" for item in items) >= 40
    assert sum(len(item.messages) > 1 for item in items) >= 10
    assert sum(item.language != "English" for item in items) >= 10


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("I am picoLLM, made by Montek Singh Kundan.", True),
        ("My name is picoLLM. Montek Singh Kundan made me.", True),
        ("I am not ChatGPT. I am picoLLM.", True),
        ("No, I am picoLLM.", True),
        ("I'm picoLLM, a small chat model.", True),
        ("I am ChatGPT.", False),
        ("I am picoLLM, also known as ChatGPT.", False),
        ("You are right, I am Zed. I was picoLLM.", False),
        ("I am picoLLM, made by OpenAI.", False),
        ("My name is Pico.", False),
        ("I am not picoLLM.", False),
        ("I am not picoLLM, I am ChatGPT.", False),
        ("No, I am not Siri, I am picoLLM.", True),
        ("I was never made by OpenAI, Google or Meta. I am picoLLM.", True),
        ("", False),
    ],
)
def test_check_a_name(items: list[IdentityItem], reply: str, right: bool) -> None:
    item = next(item for item in items if item.expect == ("picoLLM",))
    assert identity.check(item, reply) is right


def test_check_a_creator(items: list[IdentityItem]) -> None:
    item = next(item for item in items if item.expect == ("Montek Singh Kundan",))
    assert identity.check(item, "I was made by Montek Singh Kundan.")
    assert not identity.check(item, "I am picoLLM.")
    assert not identity.check(item, "Montek Singh Kundan did not make me.")
    assert not identity.check(item, "Montek Singh Kundan and OpenAI made me.")


def test_load_refuses_what_is_not_pinned(tmp_path: Path, built: list) -> None:
    path = tmp_path / "rows.jsonl"
    with pytest.raises(UnavailableError, match="does not exist"):
        identity.load(path)
    identity.write(built[:5], path)
    assert identity.load(path) == built[:5]
    path.write_bytes(path.read_bytes().replace(b"picoLLM", b"nanoLLM"))
    with pytest.raises(DataError, match="sha256"):
        identity.load(path)


def test_a_row_that_breaks_the_schema_is_named(tmp_path: Path, built: list) -> None:
    path = tmp_path / "rows.jsonl"
    broken = {"messages": [{"role": "assistant", "content": "I am picoLLM."}]}
    identity.write([*built[:5], broken, *built[5:9]], path)
    with pytest.raises(DataError, match=r"rows\.jsonl, row 6: the first message"):
        identity.load(path)


def test_verify_a_mirror(tmp_path: Path, built: list) -> None:
    mirror, local = tmp_path / "mirror.jsonl", tmp_path / "rows.jsonl"
    identity.write(built[:5], local)
    mirror.write_bytes(local.read_bytes())
    assert identity.verify(local, url=mirror.as_uri()).rows == 5
    copy = tmp_path / "copy.jsonl"
    identity.verify(local, url=mirror.as_uri(), download_to=copy)
    assert copy.read_bytes() == local.read_bytes()
    mirror.write_bytes(local.read_bytes()[:-9])
    with pytest.raises(DataError, match="is not what the manifest pins"):
        identity.verify(local, url=mirror.as_uri(), download_to=copy)
    assert copy.read_bytes() == local.read_bytes()


def test_init_gives_an_identity_of_ones_own(tmp_path: Path) -> None:
    path = identity.init("Max", 'Zoë "Z" Example', tmp_path / "mine.toml")
    made = identity.build(path)
    text = json.dumps(made, ensure_ascii=False)
    assert "picoLLM" not in text
    assert "Montek" not in text
    assert "I am Max" in text
    assert identity.scan(made, path) == []
    own = next(item for item in identity.test_items(path) if item.expect == ("Max",))
    assert identity.check(own, "I am Max.")
    assert not identity.check(own, "I am picoLLM, made by OpenAI.")


@pytest.mark.parametrize(("name", "creator"), [("", "a"), ("a", " "), ("a\nb", "c"), ("{x}", "c")])
def test_init_refuses_bad_names(tmp_path: Path, name: str, creator: str) -> None:
    with pytest.raises(InputError, match="cannot be the"):
        identity.init(name, creator, tmp_path / "mine.toml")
    assert not (tmp_path / "mine.toml").exists()


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        identity.init("Ada", "Eve", path)
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('name = "picoLLM"', "", "lacks 'name'"),
        ("[others]", "[other_names]", "lacks 'others'"),
        ('"What is your name?",', '"What is your {nickname}?",', "nobody fills {nickname}"),
        ('topics = ["name", "creator"]', 'topics = ["name", "maker_of"]', "lacks 'maker_of'"),
        ("[assistant]", "[assistant", "is not an identity file"),
        ('replies = ["{name}"]', 'replies = "{name}"', "replies of topic 'one_word' must be a list"),
        (', "And who is the person that made you?"]', "]", "must begin and end with the user"),
        ('expect = ["name"]', 'expect = ["surname"]', "lacks 'surname'"),
        ('"Who am I talking to?"', '"Who exactly are you?"', "is also a training question"),
    ],
)
def test_broken_templates_are_named(tmp_path: Path, old: str, new: str, named: str) -> None:
    text = identity.TEMPLATE.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "broken.toml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(DataError, match=named):
        identity.build(path)


def test_a_missing_template(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="does not exist"):
        identity.build(tmp_path / "nothing.toml")


def test_items_can_be_changed_by_hand(items: list[IdentityItem]) -> None:
    item = replace(items[0], name="Ada", expect=("Ada",))
    assert identity.check(item, "I am Ada.")
