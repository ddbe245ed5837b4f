"""Generate a student's answers and score them."""
