"""Stage two: students, with loading, rotation, attention capture, losses, training, decoding and metrics."""
