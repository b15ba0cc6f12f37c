"""Tools a reply may call while it is being written."""
