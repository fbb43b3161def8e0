"""XMP sidecars: find, read, edit and write them without losing a byte of others."""
