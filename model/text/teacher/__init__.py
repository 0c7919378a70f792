"""Teachers that label pairs, and distillation from them."""
