"""Model -> smaller model."""
