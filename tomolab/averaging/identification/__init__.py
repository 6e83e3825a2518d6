"""Name the structure of an average: a catalogue of known maps, their fits to it, and the verdict."""
