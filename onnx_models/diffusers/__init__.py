"""Latent and creative upscalers as ONNX files, made from folders that diffusers wrote."""
