"""`medalign student inspect`: what the image tokens of students contain, where they look, and what they answer."""
