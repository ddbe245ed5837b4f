"""What decoding methods are built from: prompts, cached branches, hooks into a branch, searches."""
