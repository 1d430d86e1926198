"""Weight formats: from their packed bytes to numbers that the decoder calculates with."""
