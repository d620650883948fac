"""The questions that the api answers. Only GET: it reads, and changes nothing."""
