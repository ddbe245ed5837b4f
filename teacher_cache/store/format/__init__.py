"""The binary format of a store (docs/store-format.md)."""
