"""A prediction as DICOM objects: built, read back and checked before anything leaves."""
