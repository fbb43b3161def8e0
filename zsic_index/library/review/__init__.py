"""Looking through a library one label at a time: accept, reject, move the threshold, apply."""
