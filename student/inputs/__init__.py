"""From questions with images to batches: pixels, tokens, spans, targets."""
