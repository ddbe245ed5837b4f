"""Stage one: a store's plan, its extraction, its extension, and computing damaged rows again."""
