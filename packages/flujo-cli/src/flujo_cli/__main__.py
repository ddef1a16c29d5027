"""`python -m flujo_cli` is `flujo`."""

from .launcher import main

if __name__ == "__main__":
    main()
