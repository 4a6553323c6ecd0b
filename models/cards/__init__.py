"""Cards: how a reward model reads a conversation, where its score is, and what the score means.

A card is a TOML file of a few lines. `shipped` has one for each public model that is known; a person writes others.
"""

from winnow.models.cards.card import Card, read_card, shipped

__all__ = ["Card", "read_card", "shipped"]
