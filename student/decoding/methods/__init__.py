"""One file for each decoding method. docs/decoding.md shows how to write one."""
