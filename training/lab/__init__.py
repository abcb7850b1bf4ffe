"""The lab: easy-to-hard generalisation in the small, with an exact checker."""
