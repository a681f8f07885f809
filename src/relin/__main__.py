"""`python -m relin` is the command `relin`."""

from relin.cli import main

if __name__ == "__main__":  # processes that a study starts import this module under another name
    main()
