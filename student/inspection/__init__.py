"""Inspection of loaded students: attention to images, and agreement with the teacher."""
