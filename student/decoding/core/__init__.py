"""Building blocks of decoding methods: prompts, branches with a KV cache, hooks into a branch, searches."""
