"""What the workshop reads: labelled pictures, texts and readings."""
