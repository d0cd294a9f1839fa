"""What comes in: pictures, clips and masks of every kind that people have. data.py is its front."""
