"""Text from a checkpoint: sampling, requests, the scheduler, the runner, the engine."""
