"""The prompt set and the measures of a reply to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from picollm.chat.conversation import Conversation, Message
from picollm.errors import DataError
from picollm.eval.prompts import Prompt, load_prompts, reply_properties
from picollm.infer.request import Reply
from picollm.tokenizer import Tokenizer


def test_the_shipped_set_begins_with_the_lectures_prompt_and_covers_its_categories() -> None:
    prompts = load_prompts()
    assert len(prompts) >= 40
    assert prompts[0].conversation.messages[-1].text == "Explain self-attention to a beginner in 4 sentences."
    assert {p.category for p in prompts} >= {"explanation", "format", "arithmetic", "spelling", "identity"}


GOOD = {"id": "a", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "holds no prompts"),
        (["{"], "line 1 is not JSON"),
        (["[1]"], "line 1 has no list of 'messages'"),
        ([json.dumps(GOOD), json.dumps(GOOD)], "line 2: the prompt id 'a' stands there twice"),
        ([json.dumps({**GOOD, "check": {"kind": "poem"}})], "check kind 'poem' is not known"),
        ([json.dumps({"messages": [{"role": "robot", "content": "x"}]})], "line 1"),
        (
            [json.dumps({"messages": [*GOOD["messages"], {"role": "assistant", "content": "x"}]})],
            "the last message is from assistant",
        ),
    ],
)
def test_a_prompt_file_that_cannot_be_used_names_file_and_line(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"mine\.jsonl") as caught:
        load_prompts(file)
    assert message in str(caught.value)


def test_a_missing_prompt_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        load_prompts(tmp_path / "none.jsonl")


def test_the_properties_of_a_reply(tokenizer: Tokenizer) -> None:
    conversation = Conversation.from_dict({"messages": [{"role": "user", "content": "Where is the lamp?"}]})
    prompt = Prompt("p", "memory", conversation, {"kind": "contains", "all": ["hall"]})
    text = "I think it is in the hall. Yes."
    ids = tokenizer.encode(text)
    found = reply_properties(
        prompt, Reply(Message("assistant", text), ids, "stop", 5), tokenizer, leaks_role=False
    )
    assert (found.ends_by_itself, found.passes, found.num_sentences) == (True, True, 2)
    assert found.num_tokens == len(ids)
    assert found.directness == len(tokenizer.encode("I think it is in the "))
    cut = Reply(Message("assistant", "The lamps"), ids[:2], "length", 5)
    found = reply_properties(prompt, cut, tokenizer, leaks_role=False)
    assert (found.ends_by_itself, found.passes, found.directness) == (False, False, None)
