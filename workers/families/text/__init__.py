"""Text: language models that go on with a text, translation of one text into another, and vectors of words."""
