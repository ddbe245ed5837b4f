"""Decoding methods: how answers are generated. docs/decoding.md lists them and shows how to add one."""

from .core.method import Method
from .method_registry import Decoding, choose_decoding, decodings, register

__all__ = ["Decoding", "Method", "choose_decoding", "decodings", "register"]
