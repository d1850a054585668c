"""`python -m monge` runs the command `monge`."""

from monge.cli import run

run()
