"""Tables: custom ones, and those of the Hugging Face Hub."""
