"""What the server tells about itself: numbers for Prometheus. Looks on; changes nothing."""
