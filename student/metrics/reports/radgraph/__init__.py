"""RadGraph: entities and relations of radiology reports, and the F1s that are computed from them."""
