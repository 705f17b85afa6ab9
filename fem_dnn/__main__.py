"""`python -m fem_dnn` is `fem-dnn`."""

from fem_dnn.cli import main

if __name__ == "__main__":
    main()
