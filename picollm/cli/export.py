"""``picollm export``, ``certify`` and ``push``: a checkpoint in the tools that people already use."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import tyro

from picollm.cli.chat import AllowMismatch, default_checkpoint
from picollm.cli.console import console, print_json, print_table, progress
from picollm.cli.train import Json
from picollm.errors import InputError, PicoError

CheckpointName = Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(help="default: runs/sft")]


def export(
    checkpoint: CheckpointName = None,
    gguf: Annotated[bool, tyro.conf.arg(help="one file for llama.cpp")] = False,
    ollama: Annotated[bool, tyro.conf.arg(help="that file, and a Modelfile for `ollama create`")] = False,
    merge: Annotated[bool, tyro.conf.arg(help="a LoRA adapter and its base as one checkpoint")] = False,
    type: Annotated[
        Literal["f32", "f16", "bf16", "q8_0"], tyro.conf.arg(help="how matrices are stored")
    ] = "f16",
    out: Annotated[Path | None, tyro.conf.arg(help="directory; default: CHECKPOINT.export")] = None,
    allow_format_mismatch: AllowMismatch = False,
    json: Json = False,
) -> None:
    """Write a checkpoint in the files of llama.cpp and Ollama; transformers and vLLM open it as it is."""
    if not (gguf or ollama or merge):
        raise InputError(
            "nothing to write: give --gguf, --ollama or --merge. transformers and vLLM open the directory "
            "itself."
        )
    from picollm.checkpoint import Checkpoint
    from picollm.interop.export import export as write
    from picollm.interop.export import write_merged

    loaded = Checkpoint.load(checkpoint or default_checkpoint(), allow_format_mismatch=allow_format_mismatch)
    files: list[Path] = []
    notes: list[str] = []
    if merge:
        loaded, out = write_merged(loaded, out or Path(f"{loaded.path}.merged")), None
        files.append(loaded.path)
    if gguf or ollama:
        written = write(loaded, out or Path(f"{loaded.path}.export"), type, ollama=ollama)
        files, notes = files + written.files, written.notes
    for file in files:
        console.print(f"-> {file}", markup=False)
    for note in notes:
        console.print(f"note: {note}", markup=False)
    if json:
        print_json({"files": list(map(str, files)), "notes": notes})


def certify(
    checkpoint: CheckpointName = None,
    runtimes: Annotated[
        str | None,
        tyro.conf.arg(help="with commas: transformers, jinja, gguf, llama.cpp, vllm; default: all installed"),
    ] = None,
    gguf: Annotated[Path | None, tyro.conf.arg(help="an exported file to look at")] = None,
    max_tokens: Annotated[int, tyro.conf.arg(help="length of the compared replies, in tokens")] = 24,
    out: Annotated[
        Path | None, tyro.conf.arg(help="default: certificate.json in the checkpoint's directory")
    ] = None,
    allow_format_mismatch: AllowMismatch = False,
    json: Json = False,
) -> None:
    """Prove that every way of serving a checkpoint reads the same conversations as the same tokens."""
    from picollm.checkpoint import Checkpoint
    from picollm.interop.certify import FILE
    from picollm.interop.certify import certify as compare

    loaded = Checkpoint.load(checkpoint or default_checkpoint(), allow_format_mismatch=allow_format_mismatch)
    names = [name.strip() for name in runtimes.split(",") if name.strip()] if runtimes else None
    certificate = compare(loaded, names, max_tokens=max_tokens, gguf=gguf, progress=progress())
    certificate.save(out or loaded.path / FILE)
    rows = []
    for f in certificate.findings:
        replies = "-" if f.num_reply_tokens is None else f"{f.num_mismatching_replies}"
        counts = (f.num_rendered, f.num_mismatching, f.num_injected, f.num_reply_tokens or "-", replies)
        rows.append((f"{f.runtime} {f.version}", *counts))
        for note in f.notes:
            console.print(f"note ({f.runtime}): {note}", markup=False)
        for d in f.differences:
            console.print(f"{f.runtime}, {d.case}, {d.what}, from token {d.at}:", markup=False)
            console.print(f"  ours    {' '.join(d.ours)}", markup=False)
            console.print(f"  theirs  {d.error or ' '.join(d.theirs)}", markup=False)
    header = ("runtime", "renders", "differ", "injected", "reply tokens", "replies differ")
    print_table(f"{certificate.format} {certificate.fingerprint[:19]}", header, rows)
    if any(f.num_injected for f in certificate.findings):
        console.print(
            "injected: a message spells a control token, and a template cannot tell it from a real one; "
            "picollm serve and picollm chat can.",
            markup=False,
        )
    if json:
        print_json({"holds": certificate.holds, **asdict(certificate)})
    if not certificate.holds:
        raise PicoError("the certificate does not hold: not every runtime reads this checkpoint alike.")


def push(
    checkpoint: Annotated[str, tyro.conf.Positional, tyro.conf.arg(help="directory of the checkpoint")],
    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(help="ORG/NAME on the Hugging Face Hub")],
    private: bool = False,
    archive: Annotated[
        bool, tyro.conf.arg(help="also the resumable training state beside the checkpoint")
    ] = False,
    report: Annotated[
        Path | None, tyro.conf.arg(help="a report of `picollm compare`, whose scores the card shows")
    ] = None,
    card: Annotated[bool, tyro.conf.arg(help="only show the model card; upload nothing")] = False,
    json: Json = False,
) -> None:
    """Upload a checkpoint to the Hugging Face Hub: the files that inference needs, and a model card."""
    from picollm.checkpoint import verify
    from picollm.interop.card import CardScore, model_card
    from picollm.interop.push import push as upload

    directory = Path(checkpoint)
    record = verify(directory)
    scores = []
    if report is not None:
        from picollm.eval.report import read_comparison

        found = [task.sft_chat for task in read_comparison(report).tasks]
        scores = [CardScore(s.task, s.num, s.value, s.interval, s.chance) for s in found if s is not None]
    text = model_card(directory, record, name, scores)
    if card:
        print(text)
        return
    url = upload(directory, name, text, private=private, archive=archive, progress=progress())
    console.print(f"uploaded -> {url}", markup=False)
    if json:
        print_json({"url": url})
