"""Training loop shared by all applications: a Run is the experiment, a State holds everything needed to resume it."""
