"""Model folders as they are written: made, converted, exported, with their records and cards."""
