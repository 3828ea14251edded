"""The landscape: minimisers, critical points, and the constants around them."""
