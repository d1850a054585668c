"""Applications. Each stands on the core; none imports another."""
