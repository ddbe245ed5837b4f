"""JPEG, PNG, TIFF and other raster files, and what Pillow misreads of them."""
