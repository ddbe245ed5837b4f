"""`medalign student inspect`: look into a student, before and after training."""
