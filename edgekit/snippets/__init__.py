"""Code that loads, feeds, runs and self-tests an artifact, in the language of the app it goes into."""
