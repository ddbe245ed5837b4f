"""RaTEScore (Zhao et al. 2024): entities of both reports, matched by meaning."""
