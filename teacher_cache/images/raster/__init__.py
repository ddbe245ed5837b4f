"""Decoding JPEG, PNG, TIFF and other raster files, including those that Pillow misreads."""
