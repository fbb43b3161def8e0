"""Images: from a path, bytes or a PIL image to upright RGB pixels.

1. ``opening.read`` turns a source into its content: the bytes of a file, read once, or a PIL image.
   ``opening.content_hash`` of it finds an embedding in the store without decoding anything.
2. The content of a RAW file is what ``raw.read`` takes out of it: the bytes of the camera's JPEG
   preview or, without one, the sensor data developed to a PIL image.
3. ``opening.decode`` checks format and size first. HEIC goes through ``heif.decode`` (libheif). All
   else goes through Pillow: a JPEG at a reduced scale if the caller allows it, then the EXIF
   orientation, then the conversion to RGB.
4. ``prefetch`` runs these steps in threads, one batch ahead of the vision tower.

Every refusal is an ``ImageError`` that names the image. To add a format of Pillow, extend
``FORMATS`` and ``SUFFIXES`` in ``opening``.
"""
