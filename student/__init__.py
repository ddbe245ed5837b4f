"""Stage two: loading students, rotation, attention capture, losses, training, decoding, metrics."""
