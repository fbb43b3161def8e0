"""Photo libraries: their sidecars, and what is done to them."""
