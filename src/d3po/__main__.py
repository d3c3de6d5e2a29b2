"""`python -m d3po` is the same as `d3po`."""

from d3po.cli import main

if __name__ == "__main__":
    main()
