"""How fast training steps are on a GPU, beside PyTorch and JAX: ``python -m benchmarks.gpu``."""
