"""``python -m compressnet`` is ``compressnet``."""

from compressnet.cli import main

if __name__ == "__main__":
    main()
