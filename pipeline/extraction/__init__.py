"""Stage one: extract a teacher store from a manifest or a folder of images."""
