"""The one byte stream between host and guest agent: frames, streams with credit, and what is said over them."""
