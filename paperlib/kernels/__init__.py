"""Training and search kernels, each beside its plain PyTorch reference. Nothing of paperlib is imported here."""
