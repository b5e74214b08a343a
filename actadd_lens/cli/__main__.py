"""`python -m actadd_lens.cli`."""

from actadd_lens.cli import main

main()
