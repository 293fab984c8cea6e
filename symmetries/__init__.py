"""Groups, representations and their invariants: algebra without lattices or network weights."""
