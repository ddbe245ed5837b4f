"""Training: the loop, checkpoints, schedule, loss logging and memory estimates."""
