"""The geometry that the teacher and the student share: from an image to a square, and to a patch grid."""
