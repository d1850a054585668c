"""Networks for the velocity v(x_t, t | cond), and for energies. They do not depend on any loss."""
