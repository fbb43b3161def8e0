"""``python -m zsic_index``: the command line."""

from zsic_index.cli import main

main(prog_name="zsic-index")
