"""Chest X-rays with reports, finding labels or questions."""
