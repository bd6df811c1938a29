"""For your own layers and functions: gradient checks, backend parity, the op catalogue, test backends."""
