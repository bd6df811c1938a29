"""Overrides of fused functions for one array library each; without them everything works, only slower."""
