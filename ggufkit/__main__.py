"""`python -m ggufkit`."""

from ggufkit.cli.main import main

if __name__ == "__main__":
    main()
