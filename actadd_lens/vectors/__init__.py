"""What is added: steering vectors, the pairs they come from, and their algebra."""
