"""`python -m implicit_atlas` is the command `implicit-atlas`."""

from implicit_atlas.cli.app import main

if __name__ == "__main__":
    main()
