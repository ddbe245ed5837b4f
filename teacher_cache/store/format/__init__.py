"""What the bytes of a store mean (docs/store-format.md)."""
