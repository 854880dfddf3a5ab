"""Upscalers that denoise in latent space, window by window."""
