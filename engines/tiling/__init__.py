"""How a picture is cut into tiles and put together again. No devices, no threads."""
