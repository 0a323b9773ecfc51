"""`python -m paddock.host CONFIG`: the keeper of one host."""

import sys

from paddock.host.keeper import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
