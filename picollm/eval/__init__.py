"""What a checkpoint can do, as numbers with intervals, and what fine-tuning changed, as a report."""
