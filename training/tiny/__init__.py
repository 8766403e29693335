"""The scripts that make the embedded tiny model; see training/README.md."""
