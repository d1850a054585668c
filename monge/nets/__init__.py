"""Networks for the velocity v(x_t, t | cond). They know no loss."""
