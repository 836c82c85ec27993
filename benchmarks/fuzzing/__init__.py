"""The fuzz campaign: seeds, mutations, what is done with a mutant, what counts, and the corpus that grows."""
