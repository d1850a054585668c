"""One training loop for all: what to train is a Run, everything that resumes is a State."""
