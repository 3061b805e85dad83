"""Many callers at once on what they share: sessions, budgets, what an agent did."""
