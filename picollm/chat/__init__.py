"""The chat format: conversations become tokens here, and nowhere else."""
