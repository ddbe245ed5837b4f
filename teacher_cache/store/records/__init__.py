"""The small files of a store; each is bounded and validated before its content is used."""
