"""What models are shown when they are tried: carried pictures and sentences, and what the device recorded."""
