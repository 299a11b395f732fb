"""Jobs and the worker threads that do them, and the arrays into which they write."""
