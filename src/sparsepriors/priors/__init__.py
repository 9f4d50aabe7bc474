"""What is believed about an unknown tensor."""
