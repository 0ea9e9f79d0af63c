"""Events kept on the device to look back at: by time, place, label, words and meaning."""
