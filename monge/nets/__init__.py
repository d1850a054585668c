"""Networks for the velocity v(x_t, t | cond). They do not depend on any loss."""
