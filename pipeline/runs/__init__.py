"""What a run leaves in its folder: who answered what, its answers so far, how they stopped."""
