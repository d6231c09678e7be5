"""The model: a picture goes in, captions and a drawn meme come out. Synchronous; knows no chat and no database."""
