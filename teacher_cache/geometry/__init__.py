"""One geometry for teacher and student: an image on a square, a square on a patch grid."""
