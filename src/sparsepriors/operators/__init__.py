"""What is measured: linear operators with exact adjoints."""
