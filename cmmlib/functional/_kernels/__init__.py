"""The loops behind `similarity_pass` and `candidate_cmm`: compiled with numba for processors, torch elsewhere."""
