"""One file for each kind of figure: a panel's data in, an SVG out."""
