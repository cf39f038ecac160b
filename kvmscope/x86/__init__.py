"""What the manuals say about x86, as data and pure functions: no engine, no I/O."""
