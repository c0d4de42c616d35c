"""`python -m lus_cli`: the same program as `lus`, in the form torchrun starts."""

from lus_cli.cli import main

if __name__ == "__main__":
    main()
