"""What transformers and vLLM make of a checkpoint: a program of its own, so that limits can hold it.

It reads one JSON document from standard input and writes one to standard output. Both render a checkpoint's
template in a sandboxed Jinja, which forbids what is dangerous but not what is endless; so this process limits
its own processor time, memory and files before it opens anything. ``trust_remote_code`` is never given, so no
Python of a checkpoint runs.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any


def limit(seconds: int, memory_bytes: int, file_bytes: int) -> None:
    """Set the kernel's limits for this process; one that a system does not know is left out."""
    limits = {"CPU": seconds, "AS": memory_bytes, "FSIZE": file_bytes, "CORE": 0}
    for name, value in limits.items():
        try:
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
        except (AttributeError, ValueError, OSError):  # macOS refuses RLIMIT_AS
            continue


def by_transformers(job: dict[str, Any]) -> dict[str, Any]:
    """Return the ids of each conversation and the greedy reply to each prompt, by the ``Auto...`` classes."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["directory"], local_files_only=True)

    def encoded(row: dict[str, Any]) -> Any:
        return tokenizer.apply_chat_template(
            row["messages"], add_generation_prompt=row["prompt"], return_dict=False
        )

    torch.set_num_threads(1)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        job["directory"], dtype=torch.float32, use_safetensors=True, local_files_only=True
    )

    def continued(prompt: list[int]) -> list[int]:
        ids = torch.tensor([prompt])
        ones = torch.ones_like(ids)
        out = model.generate(ids, attention_mask=ones, max_new_tokens=job["max_tokens"], do_sample=False)
        return out[0, len(prompt) :].tolist()  # type: ignore[no-any-return]

    ids = [tried(encoded, row) for row in job["rows"]]
    return {"version": transformers.__version__, "ids": ids, "replies": list(map(continued, job["prompts"]))}


def by_vllm(job: dict[str, Any]) -> dict[str, Any]:
    """Return the same by vLLM's own chat endpoint and engine, which may run on a GPU."""
    import vllm

    engine = vllm.LLM(
        job["directory"],
        dtype="float32",
        enforce_eager=True,
        max_model_len=job["context"],
        max_num_seqs=8,
        disable_log_stats=True,
    )

    def encoded(row: dict[str, Any]) -> list[int]:
        one = vllm.SamplingParams(max_tokens=1, temperature=0.0)
        asked = {"add_generation_prompt": row["prompt"], "use_tqdm": False}
        return list(engine.chat(row["messages"], one, **asked)[0].prompt_token_ids)

    greedy = vllm.SamplingParams(max_tokens=job["max_tokens"], temperature=0.0)
    prompts = [{"prompt_token_ids": prompt} for prompt in job["prompts"]]
    replies = [list(out.outputs[0].token_ids) for out in engine.generate(prompts, greedy, use_tqdm=False)]
    ids = [tried(encoded, row) for row in job["rows"]]
    return {"version": vllm.__version__, "ids": ids, "replies": replies}


def tried(encoded: Any, row: dict[str, Any]) -> list[int] | str:
    """Return the ids of one conversation, or the template's error as a string."""
    try:
        return [int(token_id) for token_id in encoded(row)]
    except Exception as error:  # whatever a template raises is its answer
        return f"{type(error).__name__}: {error}"[:200]


def main() -> None:
    """Answer the job on standard input; whatever a library prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    job = json.load(sys.stdin)
    limit(job["seconds"], job["memory_bytes"], job["file_bytes"])
    answers.write(json.dumps({"transformers": by_transformers, "vllm": by_vllm}[job["runtime"]](job)))
    answers.flush()


if __name__ == "__main__":
    main()
