"""Built-in decoding methods, one file each. docs/decoding.md shows how to write one."""
