"""PRECTR streaming: a click log goes in, an online-trained ranker comes out."""
