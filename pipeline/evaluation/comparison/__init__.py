"""`medalign student compare`: students, adapters, decodings and data sets in one table, with error bars and cost."""
