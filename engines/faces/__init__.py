"""Faces: found, made upright, restored and put back."""
