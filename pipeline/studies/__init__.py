"""`medalign study`: arms x regimes x seeds with redrawn training sets, tuned on one split, tested once on another."""
