"""From which distribution guided stochastic exploration draws its candidates: p(a, b) ~ f[a] g[b]."""
