"""The questions of an inspection: attention on the images, answers and losses of every arm, question by question."""
