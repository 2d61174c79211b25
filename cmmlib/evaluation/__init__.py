"""What labels say of label-free methods; every function takes labels as an argument of their own, or none."""
