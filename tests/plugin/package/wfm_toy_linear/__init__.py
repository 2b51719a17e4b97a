"""A family of another package: each latent frame is a linear function of the one before it, with a normal error."""
