"""`medalign student attend`: where a student looks in single images, for one question."""
