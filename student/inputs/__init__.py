"""Preparing batches from questions with images: pixels, tokens, spans, targets."""
