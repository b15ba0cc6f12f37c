"""``scripts/bench NAME [--json] [--full]``: run one benchmark and show its ratios."""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys

import scripts.benchmarks


def main(arguments: list[str]) -> int:
    names = sorted(m.name for m in pkgutil.iter_modules(scripts.benchmarks.__path__) if m.name != "__main__")
    chosen = [a for a in arguments if a not in ("--json", "--full")]
    if len(chosen) != 1 or chosen[0] not in names:
        print(f"usage: scripts/bench {{{','.join(names)}}} [--json] [--full]", file=sys.stderr)
        return 2
    run = importlib.import_module(f"scripts.benchmarks.{chosen[0]}").run
    result = run(full=True) if "--full" in arguments else run()
    if "--json" in arguments:
        json.dump(result, sys.stdout)
        print()
        return 0
    for row in result["rows"]:
        print("  ".join(f"{key}={value}" for key, value in row.items()))
    for name, ratio in result["ratios"].items():
        print(f"{name:28} {ratio:.2f}x")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
