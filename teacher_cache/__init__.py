"""Stage one: teachers, patch-grid geometry, and the store of their targets."""
