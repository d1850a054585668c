"""Noise to data: flow matching, OT-CFM, guidance, likelihood, few-step sampling."""
