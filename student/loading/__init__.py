"""Students from a disk: a base model, alone or with an adapter."""
