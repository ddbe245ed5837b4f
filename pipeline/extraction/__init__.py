"""Stage one wired: a manifest or a folder of images becomes a teacher store."""
