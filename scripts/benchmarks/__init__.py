"""Benchmarks: each module has ``run() -> {"ratios": {name: value}, "rows": [...]}``, both sides in a run."""
