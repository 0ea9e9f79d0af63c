"""Still pictures: read, decoded, fitted to an input, drawn on."""
