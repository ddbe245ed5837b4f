"""Tables: a lab's own, and those of the Hugging Face hub."""
