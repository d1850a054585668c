"""Listing and viewing the run directories of all applications: `monge runs` and `monge view`."""
