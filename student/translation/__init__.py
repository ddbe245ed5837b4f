"""Translation: teacher features to the student's own image tokens (ridge), and the regression of a student onto them."""
