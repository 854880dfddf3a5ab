"""The bytes of connections: uvicorn's protocols, with bounds."""
