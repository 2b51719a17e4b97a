"""A family of another package: each latent frame is a linear function of those before it, with a normal error."""
