"""``picollm verify``: is a checkpoint what was written, and are the data what it saw?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import tyro

from picollm.cli.console import console, print_json
from picollm.cli.train import DataRoot


def verify(
    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(help="a directory with record.json")],
    data_root: DataRoot = None,
    json: Annotated[bool, tyro.conf.arg(help="print one JSON document on stdout")] = False,
) -> int:
    """Check a checkpoint's files, and its data as they are now, by its record; exit code 1 if changed."""
    from picollm.checkpoint import verify as verify_files
    from picollm.recipes.provenance import verify_data

    record = verify_files(checkpoint)
    console.print(f"{checkpoint}: {len(record.files)} files, as written", markup=False)
    findings = verify_data(record, data_root)
    for each in findings:
        told = "; ".join(each.differences) or "as the checkpoint saw it"
        style = "bold red" if each.differences else None
        console.print(f"{each.name:14} {each.source}: {told}", style=style, markup=False)
    changed = sum(bool(each.differences) for each in findings)
    console.print(f"{len(findings)} sources, {changed} changed", style="bold", markup=False)
    if json:
        print_json({"files": len(record.files), "changed": changed, "sources": [asdict(f) for f in findings]})
    return int(changed > 0)
