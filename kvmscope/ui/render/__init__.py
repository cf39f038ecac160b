"""What panels draw: pure functions from a view and a size to rows."""
