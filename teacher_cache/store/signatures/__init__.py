"""Signatures of stores, and the keys to sign and verify them."""
