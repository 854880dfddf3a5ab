"""`python -m server` is the command `tilewire`."""

from server.cli import main

if __name__ == "__main__":
    main()
