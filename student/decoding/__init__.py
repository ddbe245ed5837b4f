"""Decoding methods: how answers are searched for. docs/decoding.md lists them and shows how to add one."""

from .registry import Decoding, Method, choose_decoding, decodings, register

__all__ = ["Decoding", "Method", "choose_decoding", "decodings", "register"]
