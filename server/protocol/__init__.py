"""The wire: what clients send and get, as types. No I/O."""
