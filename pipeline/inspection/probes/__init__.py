"""Linear probes on image tokens at every stage, and the verdict on where information is lost."""
