"""What models are shown when they are tried: carried, or recorded here."""
