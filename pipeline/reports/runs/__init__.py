"""Reports of finished runs: of training, evaluation, comparison and grounding, made from their folders."""
