"""Feature fusion and knowledge distillation for urban sound tagging: a thin library for a book.

Axes everywhere: (batch, channel, frequency, time). Hz and seconds unless a name says otherwise.
"""
