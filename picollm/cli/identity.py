"""``picollm identity``: build or verify the conversations that say who the model is."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from picollm.cli.console import console, print_json, print_table, progress
from picollm.data import identity as identities
from picollm.errors import InputError

File = Annotated[Path | None, tyro.conf.arg(help="the conversations; default: the package's own")]
Template = Annotated[Path | None, tyro.conf.arg(help="the readable source; default: the package's own")]
Json = Annotated[bool, tyro.conf.arg(help="print one JSON document on stdout")]


def verify(
    file: File = None,
    manifest: Annotated[Path | None, tyro.conf.arg(help="what the file must be; default: beside it")] = None,
    url: Annotated[str | None, tyro.conf.arg(help="a mirror that must hold the same bytes")] = None,
    download_to: Annotated[Path | None, tyro.conf.arg(help="where to store the verified download")] = None,
    timeout_s: Annotated[float, tyro.conf.arg(help="how long a mirror may take in all")] = 30.0,
    json: Json = False,
) -> None:
    """Check a file, and a mirror, against the manifest: bytes, rows, sha256, schema and roles."""
    if download_to is not None and url is None:
        raise InputError("--download-to stores what lies at --url; give both.")
    pinned = identities.verify(file, manifest, url, download_to, timeout_s)
    path = file or identities.CONVERSATIONS
    console.print(
        f"{path.name}: {pinned.rows:,} rows, sha256 {pinned.sha256[:12]}..., as pinned", markup=False
    )
    if json:
        print_json(dataclasses.asdict(pinned))


def build(
    template: Template = None,
    out: Annotated[Path | None, tyro.conf.arg(help="the JSON lines file; default: the package's own")] = None,
    json: Json = False,
) -> None:
    """Write the conversations of a template and their manifest, byte-identical every time."""
    if template is not None and out is None:
        raise InputError("a template of your own needs --out FILE, so that the package's identity stays.")
    made = identities.write(identities.build(template), out or identities.CONVERSATIONS)
    console.print(f"{made.rows:,} rows -> {out or identities.CONVERSATIONS}", markup=False)
    if json:
        print_json(dataclasses.asdict(made))


def scan(file: File = None, template: Template = None, json: Json = False) -> int:
    """Look for other assistants' names as claims, contradictions and personal data; exit code 1 if any."""
    rows = identities.load(file)
    found = identities.scan(rows, template)
    for line in found:
        console.print(line, markup=False)
    console.print(f"{len(rows):,} rows scanned, {len(found)} findings", markup=False)
    if json:
        print_json({"rows": len(rows), "findings": found})
    return int(bool(found))


def init(
    name: Annotated[str, tyro.conf.arg(help="the assistant's name")],
    creator: Annotated[str, tyro.conf.arg(help="who made it")],
    out: Annotated[Path, tyro.conf.arg(help="the template to write")] = Path("identity.toml"),
) -> None:
    """Write a template for an assistant of your own, to be edited and built."""
    written = identities.init(name, creator, out)
    console.print(
        f"edit {written}, then: picollm identity build --template {written} --out FILE.jsonl", markup=False
    )


def test(
    checkpoint: Annotated[str, tyro.conf.Positional, tyro.conf.arg(help="a directory or Hub id")],
    template: Template = None,
    wrong: Annotated[int, tyro.conf.arg(help="how many wrong answers to show")] = 8,
    json: Json = False,
) -> None:
    """Ask a checkpoint who it is: held-out wordings, under pressure and in other languages, greedily."""
    from picollm.recipes.identity import ask_identity

    score = ask_identity(checkpoint, template, progress=progress())
    shares = [("all", score.all), *score.kinds.items(), *score.languages.items()]
    rows = [
        [name, f"{s.num_right}/{s.num}", f"{s.value:.1%}", f"{s.interval[0]:.0%}-{s.interval[1]:.0%}"]
        for name, s in shares
    ]
    print_table(f"Who {checkpoint} says it is", ["questions", "right", "share", "95 %"], rows)
    for answer in score.wrong[:wrong]:
        asked = answer.item.messages[-1]["content"]
        expected = " and ".join(answer.item.expect)
        console.print(f"  {asked}\n    {answer.reply!r:.160}; expected {expected}", markup=False, style="dim")
    if json:
        print_json(dataclasses.asdict(score))


ACTIONS = {"verify": verify, "build": build, "scan": scan, "test": test, "init": init}
