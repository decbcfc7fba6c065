"""The paper's experiments: what it published, and what is drawn from rows beside it."""
