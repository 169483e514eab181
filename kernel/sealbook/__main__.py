"""`python -m sealbook` is the `sealbook` command."""

from sealbook.cli import main

if __name__ == "__main__":
    main()
