"""Offers, placement, cost and time; the inventory's lock and spreadsheet; the goals' contradictions."""
