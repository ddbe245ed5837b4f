"""DICOM (PS3.3, PS3.5): headers, lookup tables, frames and rendering."""
