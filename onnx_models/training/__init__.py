"""How the weights of `tilewire-latent-x2` came to be: `python -m onnx_models.training`; see README.md here.

Nothing of the server needs this package; it needs PyTorch, of the extra `export`.
"""
