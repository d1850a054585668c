"""`python -m monge` is the command `monge`."""

from monge.cli import run

run()
