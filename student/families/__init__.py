"""Reading base models from disk, family by family: weights, tokenizer, image token, template."""
