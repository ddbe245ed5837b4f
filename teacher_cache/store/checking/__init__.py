"""Whether a store is whole, what of it can be restored, and what changes only a verified one."""
