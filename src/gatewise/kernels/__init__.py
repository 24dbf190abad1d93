"""The recurrence itself: its definition, its fast implementations, and the choice between them."""
