"""The one-plaquette model: teacher on the decorated square, student on the cross, every sum done exactly."""
