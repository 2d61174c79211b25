"""Coats of arms as images: shapes, charges, the shield, and the photograph of it."""
