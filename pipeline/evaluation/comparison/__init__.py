"""`medalign student compare`: compare students, adapters, decodings and data sets, with error bars and cost."""
