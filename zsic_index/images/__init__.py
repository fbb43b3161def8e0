"""Open and decode images, with guards."""
