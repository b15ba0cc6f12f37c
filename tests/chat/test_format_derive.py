"""Templates as they are published: those of our kind are read exactly, the others refused by name."""

# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from picollm.chat.conversation import Conversation, Message
from picollm.chat.format import ChatFormat
from picollm.chat.format_specification import SPECIFICATIONS
from picollm.chat.format_template import Refused
from picollm.errors import ConversationError
from picollm.tokenizer import Tokenizer


def each(user: str, assistant: str, system: str = "", *, start: str = "", end: str = "") -> str:
    """Return a template with an expression for each role; c is the text of the message."""
    branches = [("user", user), ("assistant", assistant), ("system", system)]
    body = "".join(
        f"{{% {'if' if role == 'user' else 'elif'} m['role'] == '{role}' %}}{{{{ {expression} }}}}"
        for role, expression in branches
        if expression
    )
    refusal = "" if system else "{% else %}{{ raise_exception('System role not supported') }}"
    return (
        f"{start}{{% for m in messages %}}{{% set c = m['content'] %}}{body}{refusal}{{% endif %}}{{% endfor %}}"
        + (f"{{% if add_generation_prompt %}}{{{{ {end} }}}}{{% endif %}}" if end else "")
    )


CHATML = r"'<|im_start|>' + m['role'] + '\n' + c + '<|im_end|>\n'"
QWEN2 = (
    r"{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    r"{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    r"{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    r"{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN3 = r"""{%- set ns = namespace(last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}{%- set index = (messages|length - 1) - loop.index0 %}
{%- if message.role == "user" and ns.last_query_index == messages|length - 1 %}{%- set ns.last_query_index = index %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role != "assistant" %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- else %}
        {%- set content = message.content %}{%- set reasoning = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or reasoning) %}
            {{- '<|im_start|>assistant\n<think>\n' + reasoning.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
        {%- else %}
            {{- '<|im_start|>assistant\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"""
LLAMA2 = r"""{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""
LLAMA2_TRIMS_EACH = LLAMA2.replace(
    "system_message + '\\n<</SYS>>", "system_message.strip() + '\\n<</SYS>>"
).replace("+ message['content'] %}{% else %}", "+ message['content'].strip() %}{% else %}")
LLAMA3 = (
    r"{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    r"message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    r"{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    r"{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA31 = (
    r"""{{- bos_token }}{%- if not date_string is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}"""
    r"""{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content']|trim %}"""
    r"""{%- set messages = messages[1:] %}{%- else %}{%- set system_message = "" %}{%- endif %}"""
    r"""{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}{{- "Cutting Knowledge Date: December 2023\n" }}"""
    r"""{{- "Today Date: " + date_string + "\n\n" }}{{- system_message }}{{- "<|eot_id|>" }}"""
    r"""{%- for message in messages %}{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' """
    r"""+ message['content'] | trim + '<|eot_id|>' }}{%- endfor %}{%- if add_generation_prompt %}"""
    r"""{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"""
)
LLAMA32 = LLAMA31.replace('"26 Jul 2024"', 'strftime_now("%d %b %Y")')
GEMMA = (
    r"{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    r"{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}"
    r"{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + "
    r"'<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
GEMMA3 = (
    r"{{ bos_token }}{%- if messages[0]['role'] == 'system' -%}{%- set first = messages[0]['content'] + '\n\n' -%}"
    r"{%- set loop_messages = messages[1:] -%}{%- else -%}{%- set first = '' -%}{%- set loop_messages = messages -%}"
    r"{%- endif -%}{%- for message in loop_messages -%}{%- set role = 'model' if message['role'] == 'assistant' else "
    r"message['role'] -%}{{ '<start_of_turn>' + role + '\n' + (first if loop.first else '') }}"
    r"{{ message['content'] | trim }}{{ '<end_of_turn>\n' }}{%- endfor -%}"
    r"{%- if add_generation_prompt -%}{{'<start_of_turn>model\n'}}{%- endif -%}"
)
MISTRAL = each("'[INST] ' + c + ' [/INST]'", "c + eos_token + ' '", start="{{ bos_token }}")
MISTRAL3 = (
    r"{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}{%- set turns = messages[1:] %}"
    r"{%- else %}{%- set turns = messages %}{%- endif %}{{- bos_token }}{%- for m in turns %}{%- if m['role'] == 'user' %}"
    r"{%- if loop.last and system is defined %}{{- '[INST] ' + system + '\n\n' + m['content'] + '[/INST]' }}"
    r"{%- else %}{{- '[INST] ' + m['content'] + '[/INST]' }}{%- endif %}"
    r"{%- else %}{{- ' ' + m['content'] + eos_token}}{%- endif %}{%- endfor %}"
)
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}"
    "\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
HEADED = r"'<|' + m['role'] + '|>\n' + c"
PHI3 = each(*[HEADED + r" + '<|end|>\n'"] * 3) + (
    r"{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ '<|endoftext|>' }}{% endif %}"
)
FALCON3 = (
    r"{%- for m in messages %}{%- if m['role'] != 'assistant' %}{{- '<|' + m['role'] + '|>\n' + m['content'] + '\n' }}"
    r"{%- elif not loop.last %}{{- '<|assistant|>\n' + m['content'] + eos_token + '\n' }}"
    r"{%- else %}{{- '<|assistant|>\n' + m['content'] + eos_token }}{%- endif %}"
    r"{%- if loop.last and add_generation_prompt %}{{- '<|assistant|>\n' }}{%- endif %}{%- endfor %}"
)
DEEPSEEK = each(
    r"'User: ' + c + '\n\n'",
    "'Assistant: ' + c + eos_token",
    r"c + '\n\n'",
    start="{{ bos_token }}",
    end="'Assistant:'",
)
DEEPSEEK_R1 = (
    r"{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}{% elif m['role'] == 'user' %}"
    r"{{ '<｜User｜>' + m['content'] }}{% else %}{% set c = m['content'] %}{% if '</think>' in c %}"
    r"{% set c = c.split('</think>')[-1] %}{% endif %}{{ '<｜Assistant｜>' + c + '<｜end▁of▁sentence｜>' }}"
    r"{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"
)
VICUNA = (
    r"{% if messages[0]['role'] == 'system' %}{% set t = messages[1:] %}{{ messages[0]['content'] }}{% else %}"
    r"{% set t = messages %}{{ 'A chat between a user and an assistant.' }}{% endif %}{% for m in t %}"
    r"{% if m['role'] == 'user' %}{{ ' USER: ' + m['content'] }}{% else %}{{ ' ASSISTANT: ' + m['content'] + eos_token }}"
    r"{% endif %}{% endfor %}{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)
OPENCHAT = each(
    *["'GPT4 Correct ' + m['role'].title() + ': ' + c + '<|end_of_turn|>'"] * 3,
    start="{{ bos_token }}",
    end="'GPT4 Correct Assistant:'",
)
COMMAND = each(
    "'<|START|><|USER|>' + c.strip() + '<|END|>'",
    "'<|START|><|BOT|>' + c.strip() + '<|END|>'",
    "'<|START|><|SYSTEM|>' + c + '<|END|>'",
    start="{{ bos_token }}",
    end="'<|START|><|BOT|>'",
)
SOLAR = each(
    r"'### User:\n' + c + '\n\n'", r"'### Assistant:\n' + c + eos_token + '\n\n'", r"'### System:\n' + c + '\n\n'",
    end=r"'### Assistant:\n'",
)  # fmt: skip
OLMO = each(
    *[HEADED + r" + '\n'", r"'<|assistant|>\n' + c + '<|endoftext|>' + ('' if loop.last else '\n')"],
    HEADED + r" + '\n'",
    start="{{ '<|endoftext|>' }}",
    end=r"'<|assistant|>\n'",
)
TAGGED = (
    r"{%- for message in messages %}{%- if message.role == 'assistant' %}{{- '<|im_start|>assistant\n' }}"
    r"{%- generation %}{{- message.content + '<|im_end|>' }}{%- endgeneration %}{{- '\n' }}{%- else %}"
    r"{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    r"{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)

IM = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
S = ("<s>", "</s>", "<unk>")
HEADERS = SPECIFICATIONS["llama3"].tokens
GEMMAS = SPECIFICATIONS["gemma"].tokens
ROLES = ("<|user|>", "<|system|>", "<|assistant|>", "<|end|>", "<|endoftext|>")
COMMANDS = ("<s>", "<|START|>", "<|END|>", "<|USER|>", "<|BOT|>", "<|SYSTEM|>")
DEEP = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>")

READ: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "chatml": (each(CHATML, CHATML, CHATML, end=r"'<|im_start|>assistant\n'"), IM, {"end": "<|im_end|>"}),
    "qwen2": (QWEN2, IM, {"default_system": "You are a helpful assistant."}),
    "with generation tags": (TAGGED, IM, {}),
    "llama 2, system stripped": (LLAMA2_TRIMS_EACH, S, {"merge_system": True}),
    "llama 3": (LLAMA3, HEADERS, {"strip": ("system", "user", "assistant"), "end": "<|eot_id|>"}),
    "llama 3.1": (LLAMA31, HEADERS, {"default_system": ""}),
    "gemma": (GEMMA, GEMMAS, {"system": None, "end": "<end_of_turn>", "also_ends": ("<eos>",)}),
    "gemma 3": (GEMMA3, GEMMAS, {"merge_system": True, "strip": ("user", "assistant")}),
    "mistral": (MISTRAL, (*S, "[INST]", "[/INST]"), {"system": None}),
    "mistral without tokens for its marks": (MISTRAL, S, {"system": None, "end": "</s>"}),
    "zephyr": (ZEPHYR, S, {"end": "</s>"}),
    "phi 3": (PHI3, ROLES, {"finish": "\n<|endoftext|>", "end": "<|end|>"}),
    "falcon 3": (FALCON3, ROLES, {"finish": "", "end": "<|endoftext|>"}),
    "deepseek llm": (DEEPSEEK, DEEP, {"end": DEEP[1]}),
    "vicuna": (VICUNA, S, {"default_system": "A chat between a user and an assistant."}),
    "openchat": (OPENCHAT, (*S, "<|end_of_turn|>"), {"end": "<|end_of_turn|>"}),
    "command r": (COMMAND, COMMANDS, {"strip": ("user", "assistant")}),
    "solar": (SOLAR, S, {}),
    "olmo": (OLMO, ROLES, {"begin": "<|endoftext|>", "finish": ""}),
}

_ALL = "'<|im_start|>' + m['role'] + '\\n' + {} + '<|im_end|>\\n'"


def chatml(content: str, prompt: str = r"'<|im_start|>assistant\n'") -> str:
    return each(*[_ALL.format(content)] * 3, end=prompt)


REFUSED: dict[str, tuple[str, tuple[str, ...], str]] = {
    "qwen 3 thinks in the last reply": (QWEN3, IM, "write every turn alike"),
    "deepseek r1 deletes reasoning": (DEEPSEEK_R1, DEEP, "keep earlier reasoning"),
    "mistral 0.3 moves the system": (MISTRAL3, (*S, "[INST]", "[/INST]"), "keep every message"),
    "llama 3.2 writes the date": (LLAMA32, HEADERS, "give the same text at any time"),
    "llama 2 strips system and user as one": (LLAMA2, S, "keep the white space around a text"),
    "chance": (chatml("c + ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']|random"), IM, "at any time"),
    "a counter": (chatml("loop.index|string + c"), IM, "write every turn alike"),
    "strips one end": (chatml("c.lstrip()"), IM, "keep the white space around a text"),
    "capitals": (chatml("c|upper"), IM, "keep every message"),
    "only the first line": (chatml(r"c.strip().split('\n')[0]"), IM, "render every conversation"),
    "escapes": (chatml("c.replace('<', '&lt;')"), IM, "render every conversation"),
    "reads the text": (chatml("c.replace('/no_think', '')"), IM, "keep every text"),
    "drops the system": (chatml("c").replace("'system'", "'system' and false"), IM, "keep every message"),
    "drops early turns": (QWEN2.replace("in messages", "in messages[-4:]"), IM, "keep every message"),
    "no end": (each("'USER: ' + c", "' BOT: ' + c", "c"), IM, "end every reply"),
    "an end only at last": (
        each("'USER: ' + c", "' BOT: ' + c + ('<|im_end|>' if loop.last else '')", "c"), IM, "end every reply"
    ),
    "another prompt": (chatml("c", r"'<|im_start|>assistant\n<think>\n'"), IM, "begin a reply as it prompts"),
    "errors": ("{{ raise_exception('not today') }}", IM, "render plain conversations"),
    "nothing": ("", IM, "keep every message"),
}  # fmt: skip

TALKS = [
    [("user", "Hi"), ("assistant", "Hello.")],
    [
        ("user", " What is\n2+3? "),
        ("assistant", "Five.\n"),
        ("user", "ñandú 日本"),
        ("assistant", "{{ x }} </p>"),
    ],
    [
        ("system", "Be brief.\n"),
        ("user", "\tA\n\nB"),
        ("assistant", "C  "),
        ("user", "D"),
        ("assistant", "E"),
    ],
]


@pytest.mark.parametrize("name", READ)
def test_a_published_template_is_read_exactly(name: str, base: Tokenizer, theirs: Callable[..., Any]) -> None:
    template, tokens, expected = READ[name]
    tokenizer = base.with_special_tokens(tokens)
    special = {"bos_token": tokens[0], "eos_token": tokens[-1] if tokens is ROLES else tokens[1]}
    own = ChatFormat.from_jinja(template, tokenizer, special_tokens=special)
    assert {field: getattr(own.specification, field) for field in expected} == expected
    for talk in TALKS:
        conversation = Conversation([Message(role, text) for role, text in talk])
        if talk[0][0] == "system" and own.specification.system is None:
            with pytest.raises(ConversationError, match="no place for it"):
                own.render_conversation(conversation)
            continue
        ids, mask = own.render_conversation(conversation)
        assert theirs(tokenizer, template, conversation, **special)[0] == ids
        assert theirs(tokenizer, own.chat_template, conversation) == (ids, mask)
        question = Conversation(conversation.messages[:-1])
        assert theirs(tokenizer, template, question, prompt=True, **special)[0] == own.render_for_completion(
            question
        )
        assert theirs(tokenizer, own.chat_template_plain, conversation)[0] == ids
        if not own.specification.strip:
            assert own.parse(ids) == conversation


@pytest.mark.parametrize("name", REFUSED)
def test_another_kind_of_template_is_refused_by_name(name: str, base: Tokenizer) -> None:
    template, tokens, property = REFUSED[name]
    tokenizer = base.with_special_tokens(tokens)
    with pytest.raises(Refused, match=property) as refusal:
        ChatFormat.from_jinja(
            template, tokenizer, special_tokens={"bos_token": tokens[0], "eos_token": tokens[1]}
        )
    assert property in refusal.value.property and "\n" not in str(refusal.value)
