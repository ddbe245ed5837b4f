"""Signatures of stores, and the keys that make and check them."""
