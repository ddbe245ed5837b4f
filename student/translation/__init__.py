"""Translation of teacher features to the student's own image tokens (ridge), and regression onto them."""
