"""Which of a few taught states a part of a picture is in."""
