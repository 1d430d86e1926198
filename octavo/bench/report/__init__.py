"""The report of the suite: results.json drawn as one HTML file that needs no network."""
