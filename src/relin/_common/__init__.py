"""What needs neither JAX nor any other module of relin: files, words, optional libraries."""
