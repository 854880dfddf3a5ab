"""Bytes and pictures: what a file becomes, and what a picture is written as."""
