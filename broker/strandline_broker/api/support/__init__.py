"""What several API handlers share; not APIs of their own."""
