"""What transformers makes of a checkpoint: a program of its own, so that limits can hold it.

It reads one JSON document from standard input and writes one to standard output. transformers renders a
checkpoint's template in a sandboxed Jinja, which forbids what is dangerous but not what is endless; so this
process limits its own processor time, memory and files before it opens anything. ``trust_remote_code`` is
never given, so no Python of a checkpoint runs.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any


def limit(seconds: int, memory_bytes: int) -> None:
    """Set the kernel's limits for this process; one that a system does not know is left out."""
    limits = {"RLIMIT_CPU": seconds, "RLIMIT_AS": memory_bytes, "RLIMIT_FSIZE": 1 << 20, "RLIMIT_CORE": 0}
    for name, value in limits.items():
        try:
            resource.setrlimit(getattr(resource, name), (value, value))
        except (AttributeError, ValueError, OSError):  # macOS refuses RLIMIT_AS
            continue


def encoded(tokenizer: Any, messages: list[dict[str, Any]], prompt: bool) -> list[int] | str:
    """Return the ids of one conversation, or the template's error as a string."""
    try:
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=prompt, return_dict=False)
        return [int(token_id) for token_id in ids]
    except Exception as error:  # whatever a template raises is its answer
        return f"{type(error).__name__}: {error}"[:200]


def continued(directory: str, prompts: list[list[int]], max_tokens: int) -> list[list[int]]:
    """Return the greedy continuation of each prompt, which ends as ``generation_config.json`` says."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    model: Any = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    replies = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens, do_sample=False
        )
        replies.append(out[0, len(prompt) :].tolist())
    return replies


def main() -> None:
    """Answer the job on standard input."""
    job = json.load(sys.stdin)
    limit(job["seconds"], job["memory_mib"] << 20)
    import transformers

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["directory"], local_files_only=True)
    answer = {
        "version": transformers.__version__,
        "ids": [encoded(tokenizer, row["messages"], row["prompt"]) for row in job["rows"]],
        "replies": continued(job["directory"], job["prompts"], job["max_tokens"]),
    }
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
