"""The book's own tools: its figures, and all that publishes it. No run imports them."""
