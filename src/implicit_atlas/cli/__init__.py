"""The commands: thin layers over the package's verbs, which read options and print what was found."""
