"""One readable function for each step of the story: tokenizer, pretrain, sft, evaluate, compare."""
