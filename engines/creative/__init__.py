"""Upscalers that enlarge a picture by other means and then draw it anew, window by window, by diffusion."""
