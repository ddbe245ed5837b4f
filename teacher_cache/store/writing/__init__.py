"""Writing a store shard by shard, and finishing it."""
