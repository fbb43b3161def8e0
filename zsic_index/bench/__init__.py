"""How fast this machine is, each measurement beside its peer's in the same run on the same work."""
