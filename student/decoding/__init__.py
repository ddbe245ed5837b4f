"""Decoding methods: how answers are generated. docs/decoding.md lists them and shows how to add one."""

from .core.method import Method
from .method_code import code_of
from .method_registry import Decoding, choose_decoding, decodings, find_method, method_names, register

__all__ = [
    "Decoding",
    "Method",
    "choose_decoding",
    "code_of",
    "decodings",
    "find_method",
    "method_names",
    "register",
]
