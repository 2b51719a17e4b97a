"""The autoregressive family: a causal transformer over tokens. Read `card` first; it opens the others."""
