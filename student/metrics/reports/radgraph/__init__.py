"""RadGraph: entities and relations in radiology reports, and F1 scores of them."""
