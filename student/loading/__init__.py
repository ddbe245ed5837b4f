"""Loading students: a base model, with or without an adapter."""
