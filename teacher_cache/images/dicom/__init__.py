"""DICOM (PS3.3, PS3.5): headers, look-up tables, frames, and how they are shown."""
