"""One training loop for base models and fine-tuning: exact, resumable, on one process or many."""
