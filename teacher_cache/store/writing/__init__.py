"""Writing a store: shard by shard, closed by its digests."""
