"""`python -m server` is the command `tilewire`."""

from server.launch import main

if __name__ == "__main__":
    main()
