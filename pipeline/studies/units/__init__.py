"""Units of work of a study: what each needs, what determines its result, and how several processes divide them."""
