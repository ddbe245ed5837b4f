"""How a question becomes the text that a student was taught to answer."""
