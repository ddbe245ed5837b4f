"""The report of `medalign study`: primary comparisons, values and differences with intervals, and the trials."""
