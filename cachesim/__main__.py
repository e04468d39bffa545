"""`python -m cachesim` runs the same program as the `cachesim` command."""

from cachesim.cli import main

if __name__ == "__main__":
    main()
