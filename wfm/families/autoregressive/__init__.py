"""The autoregressive family: a causal transformer over tokens. Read `card` first; it opens the others.

card        configs, labels, what of a plan cannot work; `cost` in closed form
fit         how one is trained
draw        how one continues a past
decoding    token by token or frame by frame with a key/value cache: greedy, top-p
medusa      the same with Medusa heads, several tokens a pass
static_decoding    the same in steps of fixed shapes, for a compiled decode
"""
