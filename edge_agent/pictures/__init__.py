"""Still pictures: read, decoded, fitted to a network's input, drawn on."""
